//! PID 1 inside a sandbox: executes, streams, opens terminals, moves files, reaps.
