//! The kinds of tools: built in, sql, command, http, function; execute(Permit).
