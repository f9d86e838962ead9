"""A candidate pair: titles found for a query, where no log holds pairs."""
