import java.io.IOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.List;
import java.util.Set;
import org.apache.lucene.search.Explanation;
import org.apache.lucene.search.IndexSearcher;
import org.apache.lucene.search.Rescorer;
import org.apache.lucene.search.ScoreDoc;
import org.apache.lucene.search.TopDocs;
import raydistill.Scorer;

/**
 * Lucene: orders the hits of a first pass by the score of query and title.
 *
 * <p>Lucene 8 to 10. The title is a stored field; a hit without one is scored with an empty title.
 */
public final class LuceneRescorer extends Rescorer {
    private final Scorer scorer;
    private final String query;
    private final String field;

    /** `query`: the text that was typed. One rescorer serves one query, the scorer serves all. */
    public LuceneRescorer(Scorer scorer, String query, String field) {
        this.scorer = scorer;
        this.query = query;
        this.field = field;
    }

    @Override
    public TopDocs rescore(IndexSearcher searcher, TopDocs firstPass, int topN) throws IOException {
        List<String> titles = new ArrayList<>();
        for (ScoreDoc hit : firstPass.scoreDocs) {
            titles.add(title(searcher, hit.doc));
        }
        float[] scores = scorer.score(query, titles);
        ScoreDoc[] hits = new ScoreDoc[scores.length];
        for (int i = 0; i < scores.length; i++) {
            hits[i] = new ScoreDoc(firstPass.scoreDocs[i].doc, scores[i], firstPass.scoreDocs[i].shardIndex);
        }
        Arrays.sort(hits, Comparator.comparingDouble((ScoreDoc hit) -> -hit.score).thenComparingInt(hit -> hit.doc));
        return new TopDocs(firstPass.totalHits, Arrays.copyOf(hits, Math.min(topN, hits.length)));
    }

    @Override
    public Explanation explain(IndexSearcher searcher, Explanation firstPass, int doc) throws IOException {
        String title = title(searcher, doc);
        return Explanation.match(scorer.score(query, title), "raydistill: " + query + " / " + title, firstPass);
    }

    private String title(IndexSearcher searcher, int doc) throws IOException {
        // Lucene 10 (and 9.5 on): searcher.storedFields().document(doc, Set.of(field)), once for all hits
        String title = searcher.doc(doc, Set.of(field)).get(field);
        return title == null ? "" : title;
    }
}
