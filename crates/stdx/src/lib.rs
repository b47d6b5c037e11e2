//! What std lacks: the clock, randomness, backoff. No domain word.
