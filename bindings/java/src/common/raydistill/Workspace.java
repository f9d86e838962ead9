package raydistill;

import java.nio.ByteBuffer;
import java.nio.FloatBuffer;
import java.nio.charset.StandardCharsets;

/**
 * Native memory of one call at a time: scratch memory, queries, titles, their offsets, scores.
 *
 * <p>Its size is fixed: many titles take several native calls. It is not cleared, so pages that no call touched take
 * no memory.
 */
final class Workspace {
    private static final int MOST_TITLES = 1024; // of a native call, which takes a few milliseconds then
    private static final int ROOM = 1 << 16; // bytes of texts of a native call, before the last one
    private static final int BYTES_A_CHAR = 16, MORE_BYTES = 4096; // raydistill.h: what is read of a text
    private static final int ALONE = -1; // the row of a text that is in no list

    private final Native library;
    private final long model, block, scratch, texts; // addresses
    private final int queryChars, titleChars; // what is read of a text
    private final int titles, queryOffsets, offsets, scores; // places after `texts`; the queries are the first
    private final ByteBuffer memory; // from `texts` on
    private final FloatBuffer scored;

    Workspace(Native library, long model, long maxQuery, long maxTitle) {
        this.library = library;
        this.model = model;
        // A char more than the bytes that are read: where the cut splits a surrogate pair, its byte is not read.
        queryChars = (int) maxQuery * BYTES_A_CHAR + MORE_BYTES + 1;
        titleChars = (int) maxTitle * BYTES_A_CHAR + MORE_BYTES + 1;
        titles = aligned(ROOM + 3 * queryChars); // a char has at most 3 bytes of UTF-8
        queryOffsets = titles + aligned(ROOM + 3 * titleChars);
        offsets = queryOffsets + aligned(8 * (MOST_TITLES + 1));
        scores = offsets + aligned(8 * (MOST_TITLES + 1));
        int bytes = scores + 4 * MOST_TITLES;
        long scratchBytes = library.scratchBytes(model);
        block = Native.allocate(63 + scratchBytes + bytes);
        scratch = (block + 63) & -64;
        texts = scratch + scratchBytes;
        memory = Native.view(texts, bytes);
        scored = memory.slice(scores, 4 * MOST_TITLES).order(memory.order()).asFloatBuffer();
        memory.putLong(queryOffsets, 0).putLong(offsets, 0);
    }

    float score(String query, String title) {
        int queryBytes = putQuery(query, 0, ALONE);
        memory.putLong(offsets + 8, putTitle(title, 0, ALONE));
        scoreTitles(queryBytes, 1);
        return scored.get(0);
    }

    void score(String query, String[] given, float[] to) {
        int queryBytes = putQuery(query, 0, ALONE);
        for (int done = 0, num; done < given.length; done += num) {
            num = 0;
            for (int end = 0; done + num < given.length && num < MOST_TITLES && end <= ROOM; num++) {
                end = putTitle(given[done + num], end, done + num);
                memory.putLong(offsets + 8 * (num + 1), end);
            }
            scoreTitles(queryBytes, num);
            scored.get(0, to, done, num);
        }
    }

    void scorePairs(String[] queries, String[] given, float[] to) {
        for (int done = 0, num; done < given.length; done += num) {
            num = 0;
            int queryEnd = 0, end = 0;
            for (; done + num < given.length && num < MOST_TITLES && queryEnd <= ROOM && end <= ROOM; num++) {
                queryEnd = putQuery(queries[done + num], queryEnd, done + num);
                end = putTitle(given[done + num], end, done + num);
                memory.putLong(queryOffsets + 8 * (num + 1), queryEnd).putLong(offsets + 8 * (num + 1), end);
            }
            check(library.scorePairs(model, scratch, texts, texts + queryOffsets, texts + titles, texts + offsets,
                    num, texts + scores));
            scored.get(0, to, done, num);
        }
    }

    void free() {
        Native.free(block);
    }

    private void scoreTitles(int queryBytes, int num) {
        check(library.score(model, scratch, texts, queryBytes, texts + titles, texts + offsets, num,
                texts + scores));
    }

    private int putQuery(String query, int end, int row) {
        return put(query, 0, end, queryChars, "query", row);
    }

    private int putTitle(String title, int end, int row) {
        return put(title, titles, end, titleChars, "title", row);
    }

    /** Write a text in UTF-8 at `place + end`, and return the new end. getBytes and a copy: no other way was faster. */
    private int put(String text, int place, int end, int most, String what, int row) {
        if (text == null) {
            throw new NullPointerException(what + (row == ALONE ? "" : " " + row) + " is null");
        }
        String read = text.length() > most ? text.substring(0, most) : text;
        byte[] bytes = read.getBytes(StandardCharsets.UTF_8); // a lone surrogate becomes "?"
        memory.put(place + end, bytes);
        return end + bytes.length;
    }

    private static int aligned(int bytes) {
        return (bytes + 63) & -64;
    }

    private static void check(long code) {
        if (code != 0) {
            throw new IllegalStateException("the native library returned " + code + ": see raydistill.h");
        }
    }
}
