//! One wire each: Responses and Chat Completions; transcripts; vendor JSON lives here and nowhere else.
