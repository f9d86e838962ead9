import com.yahoo.search.Query;
import com.yahoo.search.Result;
import com.yahoo.search.Searcher;
import com.yahoo.search.result.Hit;
import com.yahoo.search.searchchain.Execution;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import raydistill.Scorer;

/**
 * Vespa: takes the best hits of the ranking so far, and orders them by the score of query and title.
 *
 * <p>`raydistill.count` in a query (default 100) is the number of hits that are scored, 0 for none. It must not be
 * above `maxHits` of the query profile. The title is a field of the default summary class.
 */
public class VespaRerankSearcher extends Searcher {
    private static final String TITLE = "title";
    private final Scorer scorer;

    /** Environment variables of the container: RAYDISTILL_MODEL, and RAYDISTILL_LIBRARY unless it is beside it. */
    public VespaRerankSearcher() {
        this(load());
    }

    VespaRerankSearcher(Scorer scorer) {
        this.scorer = scorer;
    }

    private static Scorer load() {
        String model = System.getenv("RAYDISTILL_MODEL");
        if (model == null) {
            throw new IllegalArgumentException("RAYDISTILL_MODEL is not set; it names a model file or a bundle");
        }
        try {
            return Scorer.load(Path.of(model));
        } catch (IOException error) {
            throw new UncheckedIOException(error.getMessage(), error);
        }
    }

    @Override
    public Result search(Query query, Execution execution) {
        int offset = query.getOffset(), hits = query.getHits();
        int count = query.properties().getInteger("raydistill.count", 100);
        String asked = query.getModel().getQueryString();
        boolean sorted = query.getRanking().getSorting() != null; // by an attribute, not by relevance
        if (count < 1 || hits == 0 || asked == null || sorted) {
            return execution.search(query);
        }
        query.setOffset(0);
        query.setHits(Math.max(count, offset + hits));
        Result result = execution.search(query);
        execution.fill(result); // fetches the summaries: the titles are not here before
        rescore(asked, result);
        query.setOffset(offset);
        query.setHits(hits);
        result.hits().trim(offset, hits);
        return result;
    }

    private void rescore(String asked, Result result) {
        List<Hit> scored = new ArrayList<>();
        List<String> titles = new ArrayList<>();
        for (Iterator<Hit> hits = result.hits().unorderedDeepIterator(); hits.hasNext();) {
            Hit hit = hits.next();
            if (!hit.isMeta()) { // a message or a facet
                Object title = hit.getField(TITLE);
                scored.add(hit);
                titles.add(title == null ? "" : title.toString());
            }
        }
        float[] scores = scorer.score(asked, titles);
        for (int i = 0; i < scores.length; i++) {
            scored.get(i).setRelevance(scores[i]);
        }
        result.hits().sort();
    }

    /** Vespa calls it after a new application took over. Queries that still run end with their scores. */
    @Override
    public void deconstruct() {
        scorer.close();
        super.deconstruct();
    }
}
