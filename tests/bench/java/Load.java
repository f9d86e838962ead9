import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.concurrent.atomic.AtomicLong;
import raydistill.Scorer;

/** Load MODEL PAIRS SECONDS: memory of this process, and pairs a second in 1, 2 and 8 threads; a line of JSON. */
public final class Load {
    public static void main(String[] args) throws Exception {
        List<String> queries = new ArrayList<>(), titles = new ArrayList<>();
        for (String line : Files.readAllLines(Path.of(args[1]))) {
            queries.add(line.split("\t")[0]);
            titles.add(line.split("\t")[1]);
        }
        double before = residentMib();
        StringBuilder figures = new StringBuilder();
        try (Scorer scorer = Scorer.load(Path.of(args[0]))) {
            run(scorer, queries, titles, 1, 2); // warms up
            double one = residentMib();
            for (int num : new int[] {1, 2, 8}) {
                figures.append(String.format(Locale.ROOT, "\"threads_%d_pairs_per_s\": %.0f, ", num,
                        run(scorer, queries, titles, num, Double.parseDouble(args[2]))));
            }
            System.out.printf(Locale.ROOT, "{%s\"before_mib\": %.1f, \"one_thread_mib\": %.1f, \"eight_threads_mib\": "
                    + "%.1f}%n", figures, before, one, residentMib());
        }
    }

    private static double run(Scorer scorer, List<String> queries, List<String> titles, int num, double seconds)
            throws InterruptedException {
        AtomicLong scored = new AtomicLong();
        long end = System.nanoTime() + (long) (seconds * 1e9);
        List<Thread> threads = new ArrayList<>();
        for (int thread = 0; thread < num; thread++) {
            int first = thread * 100;
            threads.add(new Thread(() -> {
                for (int at = first; System.nanoTime() < end; at = (at + 100) % (titles.size() - 100)) {
                    scored.addAndGet(scorer.score(queries.get(at), titles.subList(at, at + 100)).length);
                }
            }));
        }
        long start = System.nanoTime();
        threads.forEach(Thread::start);
        for (Thread thread : threads) {
            thread.join();
        }
        return scored.get() / ((System.nanoTime() - start) / 1e9);
    }

    private static double residentMib() throws Exception {
        for (String line : Files.readAllLines(Path.of("/proc/self/status"))) {
            if (line.startsWith("VmRSS:")) {
                return Double.parseDouble(line.replaceAll("\\D+", "")) / 1024;
            }
        }
        throw new IllegalStateException("no VmRSS");
    }
}
