"""The lexicon of a student: in how many titles a word is, and word vectors of an encoder."""
