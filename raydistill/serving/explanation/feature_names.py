"""The match features in words, and in families of those that say nearly the same.

A student has several features of one fact (all query words found, on the mean, weighted by rarity,
the worst one), whose shares of a logit are arbitrary where they go together. A family's sum is not.
"""

from __future__ import annotations

_FOUND, _LETTERS = "query words in the title", "letters of the query words in the title"
_MEANING = "meaning of the query words, beside the title's words"
_TITLE = "title words in the query, or close to it in meaning"
_ORDER = "order of the query words in the title"
_PRODUCT = "the title's product word, beside the query"
_NUMBERS = "numbers and sizes of the query in the title"
_QUERY, _TITLE_ALONE = "the query by itself", "the title by itself"
QUERY_VECTORS, TITLE_VECTORS = "query_vectors", "title_vectors"  # names besides DENSE_NAMES
_SUBJECTS = {
    "found": (_FOUND, "query words in the title"),
    "part_found": (_LETTERS, "letters of query words in the title"),
    "near": (_MEANING, "closeness in meaning of query words to title words"),
}
_SUMMARIES = {
    "mean": "mean",
    "idf": "mean by rarity",
    "least": "the worst word",
    "last": "the query's last word",
    "missing": "mean of the words not found",
}
# The feature that says most of a family's sum, in 0..1.
SHOWN = {
    _FOUND: "query_found_mean",
    _LETTERS: "query_part_found_mean",
    _MEANING: "query_near_mean",
    _TITLE: "title_near",
    _ORDER: "longest_run",
    _PRODUCT: "head_near",
    _NUMBERS: "query_numbers_found",
}
# Name: family, text.
FEATURES = {
    **{
        f"query_{kind}_{summary}": (family, f"{text}: {how}")
        for kind, (family, text) in _SUBJECTS.items()
        for summary, how in _SUMMARIES.items()
    },
    "title_found": (_TITLE, "title words in the query: mean"),
    "title_found_idf": (_TITLE, "title words in the query: mean by rarity"),
    "title_near": (_TITLE, "closeness in meaning of title words to query words: mean"),
    "title_near_idf": (_TITLE, "closeness in meaning of title words to query words: by rarity"),
    "query_trigrams_found": (_LETTERS, "letters of the query in the title"),
    "title_trigrams_found": (_TITLE, "letters of the title in the query"),
    "bm25": (_FOUND, "BM25"),
    "cosine": (_MEANING, "closeness in meaning of query and title"),
    "rarest_missing": (_FOUND, "rarity of the rarest query word not found"),
    "rarest_unlike": (_LETTERS, "rarity of the rarest query word with no like word in the title"),
    "rarest": (_QUERY, "rarity of the rarest query word"),
    "query_idf": (_QUERY, "rarity of the query words: sum"),
    "log_query_words": (_QUERY, "number of query words (logarithm)"),
    "log_title_words": (_TITLE_ALONE, "number of title words (logarithm)"),
    "query_bigrams_found": (_ORDER, "neighbouring query words that are neighbours in the title"),
    "longest_run": (_ORDER, "longest run of query words in the title"),
    "first_match_position": (_ORDER, "place of the first query word in the title"),
    "all_query_words_found": (_FOUND, "all query words are in the title"),
    "no_query": (_QUERY, "the query has no words"),
    "query_unknown": (_QUERY, "query words neither found nor known"),
    "query_numbers": (_NUMBERS, "numbers in the query"),
    "query_numbers_found": (_NUMBERS, "numbers of the query in the title: mean"),
    "query_number_missing": (_NUMBERS, "a number of the query is not in the title"),
    "title_numbers": (_TITLE_ALONE, "share of numbers among the title's words"),
    "head_near": (_PRODUCT, "the title's product word: closeness in meaning to a query word"),
    "head_last_near": (_PRODUCT, "the title's product word: closeness to the query's last word"),
    "last_before_head": (_PRODUCT, "distance of the query's last word from the product word"),
    QUERY_VECTORS: (_QUERY, "meaning of the query (its word vectors)"),
    TITLE_VECTORS: (_TITLE_ALONE, "meaning of the title (its word vectors)"),
}
