"""The judge that sees more than bigrams: families of corpora, retrainings, searches to replay."""
