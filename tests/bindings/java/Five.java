import java.nio.file.Path;
import org.apache.lucene.document.Document;
import org.apache.lucene.document.Field;
import org.apache.lucene.document.TextField;
import org.apache.lucene.index.DirectoryReader;
import org.apache.lucene.index.IndexWriter;
import org.apache.lucene.index.IndexWriterConfig;
import org.apache.lucene.index.Term;
import org.apache.lucene.search.Explanation;
import org.apache.lucene.search.IndexSearcher;
import org.apache.lucene.search.ScoreDoc;
import org.apache.lucene.search.TermQuery;
import org.apache.lucene.search.TopDocs;
import org.apache.lucene.store.ByteBuffersDirectory;
import raydistill.Scorer;

/** Indexes titles, finds those with "sofa", rescores them: Five MODEL LIBRARY QUERY TITLE... */
public final class Five {
    public static void main(String[] args) throws Exception {
        ByteBuffersDirectory folder = new ByteBuffersDirectory();
        try (IndexWriter writer = new IndexWriter(folder, new IndexWriterConfig())) {
            for (int i = 3; i < args.length; i++) {
                Document document = new Document();
                document.add(new TextField("title", args[i], Field.Store.YES));
                writer.addDocument(document);
            }
        }
        try (Scorer scorer = Scorer.load(Path.of(args[0]), Path.of(args[1]));
                DirectoryReader reader = DirectoryReader.open(folder)) {
            IndexSearcher searcher = new IndexSearcher(reader);
            TopDocs first = searcher.search(new TermQuery(new Term("title", "sofa")), 10);
            LuceneRescorer rescorer = new LuceneRescorer(scorer, args[2], "title");
            for (ScoreDoc hit : rescorer.rescore(searcher, first, 4).scoreDocs) {
                Explanation explained = rescorer.explain(searcher, Explanation.match(1f, "first"), hit.doc);
                System.out.println(searcher.doc(hit.doc).get("title") + "\t" + hit.score + "\t" + explained.getValue());
            }
        }
    }
}
