package raydistill;

import java.io.BufferedInputStream;
import java.io.BufferedWriter;
import java.io.ByteArrayOutputStream;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStreamWriter;
import java.io.Writer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.function.IntConsumer;

/**
 * Scores (query, title) pairs: one pair a line, query TAB title, in UTF-8. Prints a score a line.
 *
 * <p>In a text \t, \n, \r, \0 and \\ stand for tab, line feed, carriage return, NUL and backslash.
 */
final class Score {
    private static final int TITLES = 100;

    public static void main(String[] args) {
        boolean bench = args.length == 4 && args[0].equals("--bench");
        if (!bench && (args.length < 1 || args.length > 2 || args[0].startsWith("--"))) {
            System.err.println("usage: score MODEL [PAIRS]\n       score --bench MODEL PAIRS SECONDS");
            System.exit(2);
        }
        try (Scorer scorer = Scorer.load(Path.of(args[bench ? 1 : 0]))) {
            if (bench) {
                bench(scorer, Path.of(args[2]), Double.parseDouble(args[3]));
            } else {
                score(scorer, args.length == 2 ? Files.newInputStream(Path.of(args[1])) : System.in);
            }
        } catch (NoSuchFileException error) {
            fail(error.getMessage() + ": no such file");
        } catch (IOException | IllegalArgumentException | UnsupportedOperationException error) {
            fail(error.getMessage());
        }
    }

    private static void fail(String reason) {
        System.err.println(reason);
        System.exit(1);
    }

    private static void score(Scorer scorer, InputStream pairs) throws IOException {
        Lines lines = new Lines(pairs);
        try (Writer out = new BufferedWriter( // not System.out, which hides errors
                new OutputStreamWriter(new FileOutputStream(FileDescriptor.out)))) {
            for (String[] pair = lines.next(); pair != null; pair = lines.next()) {
                out.write(String.format(Locale.ROOT, "%.7f\n", scorer.score(pair[0], pair[1])));
            }
        }
    }

    /** Median times of a pair alone, and of a title among 100 of one query; another pair each call. */
    private static void bench(Scorer scorer, Path file, double seconds) throws IOException {
        List<String> queries = new ArrayList<>(), titles = new ArrayList<>();
        Lines lines = new Lines(Files.newInputStream(file));
        for (String[] pair = lines.next(); pair != null; pair = lines.next()) {
            queries.add(pair[0]);
            titles.add(pair[1]);
        }
        int num = queries.size();
        if (num < TITLES) {
            throw new IllegalArgumentException(file + " has " + num + " pairs; give at least " + TITLES);
        }
        long half = (long) (seconds * 5e8);
        long[] alone = times(half, at -> scorer.score(queries.get(at % num), titles.get(at % num)));
        long[] batch = times(half, at -> {
            int start = at % (num / TITLES) * TITLES;
            scorer.score(queries.get(start), titles.subList(start, start + TITLES));
        });
        System.out.printf(Locale.ROOT, "{\"language\": \"java\", \"alone_us\": %.3f, \"alone_p99_us\": %.3f, "
                + "\"batch_us\": %.3f, \"pairs\": %d}%n", alone[alone.length / 2] / 1e3,
                alone[alone.length * 99 / 100] / 1e3, batch[batch.length / 2] / 1e3 / TITLES,
                alone.length + (long) TITLES * batch.length);
    }

    /** Sorted nanoseconds of calls that together take a time, the first third of it to warm up. */
    private static long[] times(long nanoseconds, IntConsumer call) {
        long[] times = new long[1 << 10];
        int num = 0;
        long warm = System.nanoTime() + nanoseconds / 3, end = warm + nanoseconds * 2 / 3;
        for (int at = 0; num == 0 || System.nanoTime() < end; at++) {
            long start = System.nanoTime();
            call.accept(at);
            long stop = System.nanoTime();
            if (start >= warm) {
                times = num < times.length ? times : Arrays.copyOf(times, 2 * num);
                times[num++] = stop - start;
            }
        }
        times = Arrays.copyOf(times, num);
        Arrays.sort(times);
        return times;
    }

    /** Reads lines as bytes, since a text may have any character but those that are escaped. */
    private static final class Lines {
        private final InputStream from;
        private int number;

        Lines(InputStream from) {
            this.from = new BufferedInputStream(from, 1 << 16);
        }

        /** The query and the title of the next line, or null at the end. */
        String[] next() throws IOException {
            ByteArrayOutputStream[] texts = {new ByteArrayOutputStream(), new ByteArrayOutputStream()};
            int at = 0, read = from.read();
            if (read < 0) {
                return null;
            }
            for (number++; read >= 0 && read != '\n'; read = from.read()) {
                if (read == '\t' && ++at > 1) {
                    throw new IOException("line " + number + " has more than one tab");
                }
                if (read == '\\') {
                    texts[at].write(unescaped(from.read()));
                } else if (read != '\t') {
                    texts[at].write(read);
                }
            }
            if (at == 0) {
                throw new IOException("line " + number + " has no tab");
            }
            return new String[] {texts[0].toString(StandardCharsets.UTF_8), texts[1].toString(StandardCharsets.UTF_8)};
        }

        private int unescaped(int letter) throws IOException {
            int at = "tnr0\\".indexOf(letter);
            if (at < 0) {
                throw new IOException("line " + number
                        + " has a wrong escape: \\t \\n \\r \\0 and \\\\ are allowed");
            }
            return "\t\n\r\0\\".charAt(at);
        }
    }
}
