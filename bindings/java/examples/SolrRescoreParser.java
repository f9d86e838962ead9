import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Path;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.lucene.search.MatchAllDocsQuery;
import org.apache.lucene.search.Query;
import org.apache.solr.common.SolrException;
import org.apache.solr.common.params.SolrParams;
import org.apache.solr.common.util.NamedList;
import org.apache.solr.request.SolrQueryRequest;
import org.apache.solr.search.AbstractReRankQuery;
import org.apache.solr.search.QParser;
import org.apache.solr.search.QParserPlugin;
import raydistill.Scorer;

/**
 * Solr 9: `rq={!raydistill reRankDocs=100 text=$q}` orders the best documents by the score of text and title.
 *
 * <p>In solrconfig.xml, beside the jar in `lib`: <pre>
 * &lt;queryParser name="raydistill" class="SolrRescoreParser"&gt;
 *   &lt;str name="model"&gt;/models/shop/model.rdm&lt;/str&gt; &lt;str name="field"&gt;title&lt;/str&gt;
 * &lt;/queryParser&gt;</pre>
 */
public class SolrRescoreParser extends QParserPlugin {
    // A core that is reloaded makes a new plugin, and tells the old one nothing: it could not close a scorer.
    private static final ConcurrentHashMap<Path, Scorer> SCORERS = new ConcurrentHashMap<>();
    private Scorer scorer;
    private String field;

    @Override
    public void init(NamedList<?> settings) {
        field = (String) settings.get("field");
        scorer = SCORERS.computeIfAbsent(Path.of((String) settings.get("model")), SolrRescoreParser::load);
    }

    private static Scorer load(Path model) {
        try {
            return Scorer.load(model);
        } catch (IOException error) {
            throw new UncheckedIOException(error.getMessage(), error);
        }
    }

    @Override
    public QParser createParser(String text, SolrParams local, SolrParams params, SolrQueryRequest request) {
        return new QParser(text, local, params, request) {
            @Override
            public Query parse() {
                String asked = local.get("text");
                if (asked == null) {
                    throw new SolrException(SolrException.ErrorCode.BAD_REQUEST, "give the text: text=$q");
                }
                return new Rerank(asked, local.getInt("reRankDocs", 100));
            }
        };
    }

    private final class Rerank extends AbstractReRankQuery {
        private final String asked;

        Rerank(String asked, int num) {
            super(new MatchAllDocsQuery(), num, new LuceneRescorer(scorer, asked, field)); // `wrap` sets the query
            this.asked = asked;
        }

        @Override
        protected Query rewrite(Query rewritten) {
            return new Rerank(asked, reRankDocs).wrap(rewritten);
        }

        /** Solr caches results by it. */
        @Override
        public boolean equals(Object other) {
            return sameClassAs(other) && asked.equals(((Rerank) other).asked)
                    && reRankDocs == ((Rerank) other).reRankDocs && mainQuery.equals(((Rerank) other).mainQuery);
        }

        @Override
        public int hashCode() {
            return 31 * (31 * (31 * classHash() + asked.hashCode()) + reRankDocs) + mainQuery.hashCode();
        }

        @Override
        public String toString(String fieldOfText) {
            return "{!raydistill reRankDocs=" + reRankDocs + " text='" + asked + "'} " + mainQuery;
        }
    }
}
