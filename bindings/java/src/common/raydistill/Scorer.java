package raydistill;

import java.io.FileNotFoundException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Objects;

/**
 * Scores (query, title) pairs with a model file (model.rdm) and the native library.
 *
 * <p>One scorer serves any number of threads, platform or virtual. Each call takes a workspace (scratch memory, room
 * for texts) from a pool and gives it back: as many workspaces exist as calls ever ran at once. The model is mapped,
 * so processes share its memory: replace the file by a rename, as `raydistill export` does, never write over it.
 *
 * <p>Texts are raw: entities, Unicode forms and limits of length are handled inside. A lone surrogate scores as "?".
 */
public final class Scorer implements AutoCloseable {
    private final Pool pool;

    private Scorer(Pool pool) {
        this.pool = pool;
    }

    /**
     * Load a model, and the native library from the first of: the system property `raydistill.library`; the
     * environment variable RAYDISTILL_LIBRARY; `libraydistill.so` (as this system names libraries) beside the model.
     */
    public static Scorer load(Path model) throws IOException {
        String given = System.getProperty("raydistill.library", System.getenv("RAYDISTILL_LIBRARY"));
        Path file = existing(modelFile(model));
        Path beside = file.resolveSibling(System.mapLibraryName("raydistill"));
        if (given == null && !Files.isRegularFile(beside)) {
            throw new FileNotFoundException(beside + ": no such file; copy the native library there, or name it by"
                    + " -Draydistill.library or RAYDISTILL_LIBRARY"
                    + " (`python -m raydistill.serving.native FOLDER` copies it)");
        }
        return load(file, given == null ? beside : Path.of(given));
    }

    /**
     * Load a model with a native library that fits this CPU.
     *
     * @param model a model file, or the folder of a bundle
     * @throws IOException a file is missing, cannot be used or belongs to another version; the message says which
     * @throws UnsupportedOperationException this Java has no foreign function API, or was started without it
     */
    public static Scorer load(Path model, Path library) throws IOException {
        Path file = existing(modelFile(model));
        try {
            return new Scorer(new Pool(file, new Native(existing(library))));
        } catch (LinkageError | IllegalCallerException error) {
            throw new UnsupportedOperationException("raydistill needs Java 21 or newer, or Java 17 started with"
                    + " --add-modules jdk.incubator.foreign --enable-native-access=ALL-UNNAMED; this is Java "
                    + System.getProperty("java.version") + " (" + error + ")", error);
        }
    }

    private static Path modelFile(Path model) {
        return Files.isDirectory(model) ? model.resolve("model.rdm") : model;
    }

    private static Path existing(Path file) throws FileNotFoundException {
        if (!Files.isRegularFile(file)) {
            throw new FileNotFoundException(file + ": no such file");
        }
        return file;
    }

    /** The score from which a pair counts as relevant. */
    public double threshold() {
        return pool.threshold;
    }

    /** Scores in 0..1 of one query's titles, in their order. */
    public float[] score(String query, List<String> titles) {
        String[] texts = array(titles, "titles is null");
        float[] scores = new float[texts.length];
        Workspace workspace = pool.take();
        try {
            workspace.score(query, texts, scores);
        } finally {
            pool.give(workspace);
        }
        return scores;
    }

    /** The score in 0..1 of one pair. */
    public float score(String query, String title) {
        Workspace workspace = pool.take();
        try {
            return workspace.score(query, title);
        } finally {
            pool.give(workspace);
        }
    }

    /** Scores in 0..1 of pairs, in their order. Equal queries in succession are read once. */
    public float[] scorePairs(List<String> queries, List<String> titles) {
        String[] asked = array(queries, "queries is null"), texts = array(titles, "titles is null");
        if (asked.length != texts.length) {
            throw new IllegalArgumentException(asked.length + " queries for " + texts.length + " titles");
        }
        float[] scores = new float[texts.length];
        Workspace workspace = pool.take();
        try {
            workspace.scorePairs(asked, texts, scores);
        } finally {
            pool.give(workspace);
        }
        return scores;
    }

    /** A copy, since the list may change meanwhile. */
    private static String[] array(List<String> texts, String error) {
        return Objects.requireNonNull(texts, error).toArray(new String[0]);
    }

    /** Free the memory, as soon as calls that run have ended. Later calls throw IllegalStateException. */
    @Override
    public void close() {
        pool.close();
    }
}
