//! The one driver: performs effects, owns concurrency, leases, timers, recovery.
