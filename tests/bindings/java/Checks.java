import java.lang.ref.Reference;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicBoolean;
import raydistill.Scorer;

/** Checks of a scorer under wrong and heavy use: Checks MODEL LIBRARY. Prints a line a check: name, tab, result. */
public final class Checks {
    private interface Check {
        Object run() throws Exception;
    }

    private static final String QUERY = "grey sofa 3 seats";
    private static final List<String> TITLES = titles(300);
    private static Path model, library;
    private static Scorer scorer;
    private static float[] expected;

    public static void main(String[] args) throws Exception {
        model = Path.of(args[0]);
        library = Path.of(args[1]);
        scorer = Scorer.load(model, library);
        expected = scorer.score(QUERY, TITLES);
        Map<String, Check> checks = new LinkedHashMap<>();
        checks.put("threshold", () -> scorer.threshold());
        checks.put("one pair is as in a list", Checks::alone);
        checks.put("pairs are as with one query", Checks::pairs);
        checks.put("no titles", () -> scorer.score(QUERY, List.of()).length + scorer.scorePairs(List.of(),
                List.of()).length);
        checks.put("null query", () -> thrown(() -> scorer.score(null, TITLES)));
        checks.put("null title", () -> thrown(() -> scorer.score(QUERY, Arrays.asList("a", null))));
        checks.put("null list", () -> thrown(() -> scorer.score(QUERY, (List<String>) null)));
        checks.put("null in pairs", () -> thrown(() -> scorer.scorePairs(Arrays.asList("a", null), List.of("a", "b"))));
        checks.put("sides", () -> thrown(() -> scorer.scorePairs(List.of("a"), List.of("a", "b"))));
        checks.put("other elements", Checks::otherElements);
        checks.put("surrogates", () -> Arrays.toString(scorer.score("\ud83d sofa", List.of("\ud800", "a\udc00b",
                "\udc00\ud800 sofa", "\ud83d\ude00", "sofa \udbff"))));
        checks.put("huge title", Checks::huge);
        checks.put("many titles", Checks::many);
        checks.put("a list that changes", Checks::changing);
        checks.put("threads", () -> inThreads(Executors.newFixedThreadPool(8), 200));
        checks.put("virtual threads", () -> inThreads(virtual(), 300));
        checks.put("garbage", Checks::garbage);
        checks.put("memory is given back", Checks::mappings);
        checks.put("closed during calls", Checks::closing);
        checks.put("closed", Checks::closed);
        for (Map.Entry<String, Check> check : checks.entrySet()) {
            String result;
            try {
                result = String.valueOf(check.getValue().run());
            } catch (Throwable error) {
                result = "failed: " + error;
            }
            System.out.println(check.getKey() + "\t" + result);
        }
    }

    private static List<String> titles(int num) {
        List<String> titles = new ArrayList<>();
        for (int i = 0; i < num; i++) {
            titles.add("Grey fabric sofa, " + i % 7 + " seats, " + i + " cm, n\u00b0 \u4e2d " + (char) ('a' + i % 26));
        }
        return titles;
    }

    private static String thrown(Check check) {
        try {
            return "returned " + check.run();
        } catch (Exception error) {
            return error.getClass().getSimpleName() + ": " + error.getMessage();
        }
    }

    private static void same(float[] scores, float[] others) {
        if (!Arrays.equals(scores, others)) {
            throw new IllegalStateException(Arrays.toString(scores) + " is not " + Arrays.toString(others));
        }
    }

    private static String alone() {
        float[] scores = new float[TITLES.size()];
        for (int i = 0; i < scores.length; i++) {
            scores[i] = scorer.score(QUERY, TITLES.get(i));
        }
        same(scores, expected);
        return "ok";
    }

    private static String pairs() {
        same(scorer.scorePairs(Collections.nCopies(TITLES.size(), QUERY), TITLES), expected);
        return "ok";
    }

    @SuppressWarnings({"unchecked", "rawtypes"})
    private static String otherElements() {
        List numbers = List.of(1, 2);
        return thrown(() -> scorer.score(QUERY, (List<String>) numbers)).split(":")[0];
    }

    /** Of a text its first part is read, wherever that ends: between the halves of a surrogate pair too. */
    private static String huge() {
        for (String part : List.of("sofa ", "\u4e2d\u6587 ", "\ud83d\ude00", "a\ud83d\ude00")) {
            String title = part.repeat(1_000_000), cut = title.substring(0, 100_000 / part.length() * part.length());
            same(scorer.score(title, List.of(title, QUERY)), scorer.score(cut, List.of(cut, QUERY)));
        }
        return "ok";
    }

    /** More titles, and more text, than go into one native call. */
    private static String many() {
        List<String> titles = titles(30_000), queries = Collections.nCopies(titles.size(), QUERY);
        titles.set(17, "sofa ".repeat(1000));
        float[] scores = scorer.score(QUERY, titles);
        same(scorer.scorePairs(queries, titles), scores);
        for (int i = 0; i < scores.length; i += 97) {
            same(new float[] {scores[i]}, new float[] {scorer.score(QUERY, titles.get(i))});
        }
        return "ok";
    }

    private static String changing() throws Exception {
        AtomicBoolean ended = new AtomicBoolean();
        List<String> titles = new ArrayList<>(TITLES);
        Thread other = new Thread(() -> {
            for (int i = 0; !ended.get(); i++) {
                if (i % 3 == 0) {
                    titles.clear();
                } else {
                    titles.add(i % 5 == 0 ? null : "sofa".repeat(i % 50));
                }
            }
        });
        other.start();
        int num = 0;
        for (int i = 0; i < 3_000 || num == 0; i++) { // the other thread may wait for a core
            try {
                num += scorer.score(QUERY, titles).length;
            } catch (RuntimeException error) {
                num++; // a null, or what the list throws
            }
        }
        ended.set(true);
        other.join();
        return "ok";
    }

    private static ExecutorService virtual() throws Exception {
        try {
            return (ExecutorService) Executors.class.getMethod("newVirtualThreadPerTaskExecutor").invoke(null);
        } catch (NoSuchMethodException error) {
            return Executors.newFixedThreadPool(2); // Java 17 has none
        }
    }

    private static String inThreads(ExecutorService threads, int num) throws Exception {
        Callable<float[]> task = () -> scorer.score(QUERY, TITLES);
        for (Future<float[]> scores : threads.invokeAll(Collections.nCopies(num, task))) {
            same(scores.get(), expected);
        }
        threads.shutdown();
        return "ok";
    }

    /** Collections while calls run: the collector moves strings and arrays. */
    private static String garbage() throws Exception {
        AtomicBoolean ended = new AtomicBoolean();
        Thread other = new Thread(() -> {
            byte[][] kept = new byte[100][];
            for (int i = 0; !ended.get(); i++) {
                kept[i % 100] = new byte[100_000];
                if (i % 2000 == 0) {
                    System.gc();
                }
            }
            Reference.reachabilityFence(kept);
        });
        other.start();
        inThreads(Executors.newFixedThreadPool(4), 200);
        ended.set(true);
        other.join();
        return "ok";
    }

    private static String mappings() throws Exception {
        for (int i = 0; i < 100; i++) {
            try (Scorer other = Scorer.load(model, library)) {
                same(other.score(QUERY, TITLES), expected);
            }
        }
        Path maps = Path.of("/proc/self/maps");
        long left = !Files.exists(maps) ? 1 : Files.readAllLines(maps).stream()
                .filter(line -> line.contains(model.getFileName().toString())).count();
        return left == 1 ? "ok" : left + " mappings of the model"; // that of `scorer`
    }

    /** Calls give scores, or throw once the scorer is closed; its memory goes after the last of them. */
    private static String closing() throws Exception {
        for (int round = 0; round < 20; round++) {
            Scorer other = Scorer.load(model, library);
            ExecutorService threads = Executors.newFixedThreadPool(4);
            Callable<Integer> task = () -> {
                int num = 0;
                try {
                    for (; num < 100_000; num++) {
                        same(other.score(QUERY, TITLES), expected);
                    }
                } catch (IllegalStateException closed) {
                    return closed.getMessage().equals("the scorer is closed") ? num : -1;
                }
                return -1;
            };
            List<Future<Integer>> tasks = new ArrayList<>();
            for (int i = 0; i < 4; i++) {
                tasks.add(threads.submit(task));
            }
            Thread.sleep(round % 5);
            other.close();
            other.close();
            for (Future<Integer> num : tasks) {
                if (num.get() < 0) {
                    return "a call failed otherwise, or was never refused";
                }
            }
            threads.shutdown();
        }
        return mappings();
    }

    private static String closed() {
        scorer.close();
        return thrown(() -> scorer.score(QUERY, TITLES)) + ", " + thrown(() -> scorer.score(QUERY, "sofa")) + ", "
                + thrown(() -> scorer.scorePairs(List.of(), List.of())) + ", " + (scorer.threshold() > 0);
    }
}
