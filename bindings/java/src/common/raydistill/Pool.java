package raydistill;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.List;
import java.util.concurrent.atomic.AtomicReferenceArray;

/** A mapped model and its workspaces, one for each call that runs. The model is unmapped after the last of them. */
final class Pool {
    private static final int SLOTS = 64;
    private static final int STRIDE = 16; // references of 4 bytes in a cache line: no two slots share one
    private static final int HEADER_BYTES = 1024, MAX_QUERY = 8 * 12, MAX_TITLE = 8 * 13, THRESHOLD = 8 * 28;
    private static final List<String> REASONS = List.of("", "no model file",
            "a model file for another version of the library", "not complete",
            "a number in it is out of range", "its checksum differs", "its memory is not aligned");

    final double threshold;
    private final Native library;
    private final Native.Mapping model;
    private final long maxQuery, maxTitle; // characters
    private final AtomicReferenceArray<Workspace> idle = new AtomicReferenceArray<>(SLOTS * STRIDE);
    private int numWorkspaces; // that exist, idle or in a call; guarded by this
    private volatile boolean closed;

    Pool(Path file, Native library) throws IOException {
        this.library = library;
        model = new Native.Mapping(file);
        long code = model.bytes == 0 ? 1 : library.check(model.address, model.bytes);
        if (code != 0) {
            model.unmap();
            throw new IOException(file + ": "
                    + (code > 0 && code < REASONS.size() ? REASONS.get((int) code) : "code " + code));
        }
        ByteBuffer header = Native.view(model.address, HEADER_BYTES);
        maxQuery = header.getLong(MAX_QUERY);
        maxTitle = header.getLong(MAX_TITLE);
        threshold = header.getDouble(THRESHOLD);
    }

    /** An idle workspace, or a new one. No thread-local: each virtual thread would have one. */
    Workspace take() {
        int start = (int) Thread.currentThread().getId();
        for (int slot = 0; slot < SLOTS; slot++) {
            int at = (start + slot) % SLOTS * STRIDE;
            Workspace workspace = idle.get(at) == null ? null : idle.getAndSet(at, null);
            if (workspace != null) {
                if (!closed) {
                    return workspace;
                }
                free(workspace);
                break;
            }
        }
        return create();
    }

    /** Make a workspace idle that `take` returned. */
    void give(Workspace workspace) {
        int start = (int) Thread.currentThread().getId();
        for (int slot = 0; slot < SLOTS; slot++) {
            if (idle.compareAndSet((start + slot) % SLOTS * STRIDE, null, workspace)) {
                if (closed) { // it may have been put there after `close` looked
                    freeIdle();
                }
                return;
            }
        }
        free(workspace);
    }

    void close() {
        closed = true;
        freeIdle();
    }

    private synchronized Workspace create() {
        if (closed) {
            throw new IllegalStateException("the scorer is closed");
        }
        Workspace workspace = new Workspace(library, model.address, maxQuery, maxTitle);
        numWorkspaces++;
        return workspace;
    }

    private synchronized void freeIdle() {
        for (int at = 0; at < idle.length(); at += STRIDE) {
            Workspace workspace = idle.getAndSet(at, null);
            if (workspace != null) {
                free(workspace);
            }
        }
        unmapIfUnused();
    }

    private synchronized void free(Workspace workspace) {
        workspace.free();
        numWorkspaces--;
        unmapIfUnused();
    }

    private void unmapIfUnused() {
        if (closed && numWorkspaces == 0) {
            model.unmap(); // has no effect the second time
        }
    }
}
