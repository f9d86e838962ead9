package raydistill;

import static jdk.incubator.foreign.CLinker.C_INT;
import static jdk.incubator.foreign.CLinker.C_LONG_LONG;
import static jdk.incubator.foreign.CLinker.C_POINTER;

import java.io.IOException;
import java.lang.invoke.MethodHandle;
import java.lang.invoke.MethodType;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Collections;
import jdk.incubator.foreign.CLinker;
import jdk.incubator.foreign.FunctionDescriptor;
import jdk.incubator.foreign.MemoryAddress;
import jdk.incubator.foreign.MemoryLayout;
import jdk.incubator.foreign.MemorySegment;
import jdk.incubator.foreign.ResourceScope;

/** As `Native` for Java 21 and newer, which has the comments; by the incubating module jdk.incubator.foreign. */
final class Native {
    private static final CLinker LINKER = CLinker.getInstance();
    // Not System.load, which refuses a library that another class loader has loaded.
    private static final MethodHandle DLOPEN = LINKER.downcallHandle(CLinker.systemLookup().lookup("dlopen").get(),
            MethodType.methodType(MemoryAddress.class, MemoryAddress.class, int.class),
            FunctionDescriptor.of(C_POINTER, C_POINTER, C_INT));
    private static final MethodHandle DLSYM = LINKER.downcallHandle(CLinker.systemLookup().lookup("dlsym").get(),
            MethodType.methodType(MemoryAddress.class, MemoryAddress.class, MemoryAddress.class),
            FunctionDescriptor.of(C_POINTER, C_POINTER, C_POINTER));
    private static final int RTLD_NOW = 2;

    // Each with its symbol: with the symbol as an argument a call takes 250 ns more. On x86-64 more than six arguments
    // do not fit into registers, and Java 17 has a slow way for them: about 1 us.
    private final MethodHandle check, scratchBytes, score, scorePairs;

    Native(Path library) throws IOException {
        MemoryAddress handle;
        try (ResourceScope scope = ResourceScope.newConfinedScope()) {
            handle = (MemoryAddress) DLOPEN.invokeExact(
                    CLinker.toCString(library.toAbsolutePath().toString(), scope).address(), RTLD_NOW);
        } catch (Throwable error) {
            throw new AssertionError(error);
        }
        if (handle.equals(MemoryAddress.NULL)) {
            throw new IOException(library + ": cannot be loaded as the native library of this machine");
        }
        check = find(handle, "rd_check", 2, library);
        scratchBytes = find(handle, "rd_scratch_bytes", 1, library);
        score = find(handle, "rd_score", 8, library);
        scorePairs = find(handle, "rd_score_pairs", 8, library);
    }

    private static MethodHandle find(MemoryAddress handle, String name, int numArguments, Path library)
            throws IOException {
        MemoryAddress symbol;
        try (ResourceScope scope = ResourceScope.newConfinedScope()) {
            symbol = (MemoryAddress) DLSYM.invokeExact(handle, CLinker.toCString(name, scope).address());
        } catch (Throwable error) {
            throw new AssertionError(error);
        }
        if (symbol.equals(MemoryAddress.NULL)) {
            throw new IOException(library + ": has no function " + name);
        }
        MemoryLayout[] longs = Collections.nCopies(numArguments, C_LONG_LONG).toArray(new MemoryLayout[0]);
        return LINKER.downcallHandle(symbol,
                MethodType.methodType(long.class, Collections.nCopies(numArguments, long.class)),
                FunctionDescriptor.of(C_LONG_LONG, longs));
    }

    long check(long model, long bytes) {
        try {
            return (long) check.invokeExact(model, bytes);
        } catch (Throwable error) {
            throw new AssertionError(error);
        }
    }

    long scratchBytes(long model) {
        try {
            return (long) scratchBytes.invokeExact(model);
        } catch (Throwable error) {
            throw new AssertionError(error);
        }
    }

    long score(long model, long scratch, long query, long bytes, long titles, long offsets, long num, long scores) {
        try {
            return (long) score.invokeExact(model, scratch, query, bytes, titles, offsets, num, scores);
        } catch (Throwable error) {
            throw new AssertionError(error);
        }
    }

    long scorePairs(long model, long scratch, long queries, long queryOffsets, long titles, long offsets, long num,
            long scores) {
        try {
            return (long) scorePairs.invokeExact(model, scratch, queries, queryOffsets, titles, offsets, num, scores);
        } catch (Throwable error) {
            throw new AssertionError(error);
        }
    }

    static long allocate(long bytes) {
        return CLinker.allocateMemory(bytes).toRawLongValue();
    }

    static void free(long address) {
        CLinker.freeMemory(MemoryAddress.ofLong(address));
    }

    static ByteBuffer view(long address, long bytes) {
        return MemoryAddress.ofLong(address).asSegment(bytes, ResourceScope.globalScope()).asByteBuffer()
                .order(ByteOrder.nativeOrder());
    }

    static final class Mapping {
        final long address, bytes;
        private final ResourceScope scope = ResourceScope.newSharedScope();

        Mapping(Path file) throws IOException {
            try {
                bytes = Files.size(file);
                address = MemorySegment.mapFile(file, 0, bytes, FileChannel.MapMode.READ_ONLY, scope).address()
                        .toRawLongValue();
            } catch (IOException | RuntimeException error) {
                unmap();
                throw error;
            }
        }

        void unmap() {
            if (scope.isAlive()) {
                scope.close();
            }
        }
    }
}
