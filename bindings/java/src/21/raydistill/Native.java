package raydistill;

import static java.lang.foreign.ValueLayout.JAVA_LONG;

import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemoryLayout;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SymbolLookup;
import java.lang.invoke.MethodHandle;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.file.Path;
import java.util.Collections;

/**
 * The native library, and memory outside the heap, by java.lang.foreign. The form for Java 17 has the same methods.
 *
 * <p>Addresses are numbers. `Pool` keeps what they point to alive: a segment would be checked and counted each call,
 * by all threads at one place.
 */
final class Native {
    private static final Linker LINKER = Linker.nativeLinker();
    private static final MethodHandle MALLOC = handle(LINKER.defaultLookup().find("malloc").get(), 1);
    private static final MethodHandle FREE = LINKER.downcallHandle(LINKER.defaultLookup().find("free").get(),
            FunctionDescriptor.ofVoid(JAVA_LONG));

    private final MethodHandle check, scratchBytes, score, scorePairs;

    /** Load a library. It is never unloaded. */
    Native(Path library) throws IOException {
        SymbolLookup symbols;
        try {
            symbols = SymbolLookup.libraryLookup(library.toAbsolutePath(), Arena.global());
        } catch (IllegalArgumentException error) {
            throw new IOException(library + ": cannot be loaded as the native library of this machine", error);
        }
        check = find(symbols, "rd_check", 2, library);
        scratchBytes = find(symbols, "rd_scratch_bytes", 1, library);
        score = find(symbols, "rd_score", 8, library);
        scorePairs = find(symbols, "rd_score_pairs", 8, library);
    }

    private static MethodHandle find(SymbolLookup symbols, String name, int numArguments, Path library)
            throws IOException {
        return handle(symbols.find(name).orElseThrow(() -> new IOException(library + ": has no function " + name)),
                numArguments);
    }

    /** Numbers and addresses are passed alike. Not `critical`: a call is as fast, and would keep a GC waiting. */
    private static MethodHandle handle(MemorySegment symbol, int numArguments) {
        MemoryLayout[] longs = Collections.nCopies(numArguments, JAVA_LONG).toArray(new MemoryLayout[0]);
        return LINKER.downcallHandle(symbol, FunctionDescriptor.of(JAVA_LONG, longs));
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

    /** Memory that is not cleared. */
    static long allocate(long bytes) {
        long address;
        try {
            address = (long) MALLOC.invokeExact(bytes);
        } catch (Throwable error) {
            throw new AssertionError(error);
        }
        if (address == 0) {
            throw new OutOfMemoryError("no " + bytes + " bytes outside the heap");
        }
        return address;
    }

    static void free(long address) {
        try {
            FREE.invokeExact(address);
        } catch (Throwable error) {
            throw new AssertionError(error);
        }
    }

    static ByteBuffer view(long address, long bytes) {
        return MemorySegment.ofAddress(address).reinterpret(bytes).asByteBuffer().order(ByteOrder.nativeOrder());
    }

    /** A file in memory, for reading. */
    static final class Mapping {
        final long address, bytes;
        private final Arena arena = Arena.ofShared();

        Mapping(Path file) throws IOException {
            try (FileChannel channel = FileChannel.open(file)) {
                bytes = channel.size();
                address = channel.map(FileChannel.MapMode.READ_ONLY, 0, bytes, arena).address();
            } catch (IOException | RuntimeException error) {
                unmap();
                throw error;
            }
        }

        void unmap() {
            if (arena.scope().isAlive()) {
                arena.close();
            }
        }
    }
}
