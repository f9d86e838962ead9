"""What is made once before a teacher scores or a student is fitted: lexicon, trees, scores."""
