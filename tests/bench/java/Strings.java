import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_LONG;
import static java.lang.foreign.ValueLayout.JAVA_LONG_UNALIGNED;

import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemorySegment;
import java.lang.invoke.MethodHandle;
import java.nio.ByteBuffer;
import java.nio.CharBuffer;
import java.nio.charset.CharsetEncoder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.function.ToIntFunction;
import java.util.stream.Collectors;

/**
 * Ways of a string into native memory, and of a call into a library, in nanoseconds; with JDK 22 or newer:
 *
 *     java --enable-native-access=ALL-UNNAMED tests/bench/java/Strings.java FILE
 *
 * FILE has a text a line. Prints a line a round; the first rounds warm up.
 */
public final class Strings {
    private static final MemorySegment SEGMENT = Arena.global().allocate(1 << 20, 64);
    private static final ByteBuffer BUFFER = SEGMENT.asByteBuffer();
    private static final byte[] BYTES = new byte[1 << 20];
    private static final CharsetEncoder ENCODER = StandardCharsets.UTF_8.newEncoder();
    private static final FunctionDescriptor LABS = FunctionDescriptor.of(JAVA_LONG, JAVA_LONG);
    private static final MemorySegment SYMBOL = Linker.nativeLinker().defaultLookup().find("labs").get();
    private static final MethodHandle CRITICAL =
            Linker.nativeLinker().downcallHandle(SYMBOL, LABS, Linker.Option.critical(false));
    private final MethodHandle usual = Linker.nativeLinker().downcallHandle(SYMBOL, LABS);

    private static int getBytes(String text) {
        byte[] bytes = text.getBytes(StandardCharsets.UTF_8);
        BUFFER.put(0, bytes);
        return bytes.length;
    }

    private static int charAt(String text) {
        int length = text.length(), all = 0;
        for (int i = 0; i < length; i++) {
            char letter = text.charAt(i);
            all |= letter;
            BYTES[i] = (byte) letter;
        }
        if (all >= 0x80) {
            return getBytes(text);
        }
        BUFFER.put(0, BYTES, 0, length);
        return length;
    }

    private static int encoder(String text) {
        BUFFER.clear();
        ENCODER.encode(CharBuffer.wrap(text), BUFFER, true);
        return BUFFER.position();
    }

    /** It does not tell the length, so looks for a byte that is not ASCII. */
    private static int setString(String text) {
        int length = text.length(), at = 0;
        SEGMENT.setString(0, text);
        for (; at + 8 <= length; at += 8) {
            if ((SEGMENT.get(JAVA_LONG_UNALIGNED, at) & 0x8080808080808080L) != 0) {
                return getBytes(text);
            }
        }
        for (; at < length; at++) {
            if (SEGMENT.get(JAVA_BYTE, at) < 0) {
                return getBytes(text);
            }
        }
        return length;
    }

    private static String nanoseconds(String name, List<String> texts, ToIntFunction<String> way) {
        long start = System.nanoTime(), sum = 0;
        for (int round = 0; round < 20; round++) {
            for (String text : texts) {
                sum += way.applyAsInt(text);
            }
        }
        return String.format("%s %.1f%s", name, (System.nanoTime() - start) / 20.0 / texts.size(), sum < 0 ? "!" : "");
    }

    private String calls(boolean critical) throws Throwable {
        long start = System.nanoTime(), sum = 0, num = 1_000_000;
        for (long i = 0; i < num; i++) {
            sum += critical ? (long) CRITICAL.invokeExact(i) : (long) usual.invokeExact(i);
        }
        return String.format("%s %.1f%s", critical ? "critical call" : "call",
                (System.nanoTime() - start) / 1.0 / num, sum < 0 ? "!" : "");
    }

    public static void main(String[] args) throws Throwable {
        List<String> texts = Files.readAllLines(Path.of(args[0])).stream().limit(20_000).collect(Collectors.toList());
        List<String> others = texts.stream().map(text -> "\u00fc" + text).collect(Collectors.toList());
        Strings strings = new Strings();
        for (int round = 0; round < 6; round++) {
            for (List<String> some : List.of(texts, others)) {
                System.out.println((some == others ? "with \u00fc: " : "") + String.join(", ",
                        nanoseconds("getBytes", some, Strings::getBytes),
                        nanoseconds("charAt", some, Strings::charAt),
                        nanoseconds("encoder", some, Strings::encoder),
                        nanoseconds("setString", some, Strings::setString)));
            }
            System.out.println(strings.calls(false) + ", " + strings.calls(true));
        }
    }
}
