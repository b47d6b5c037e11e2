//! The client against real servers on the loopback interface: exchanges and their limits, vetting, redirects, proxies, TLS.

mod exchange;
mod proxy;
mod redirect;
mod server;
mod tls;
mod vetting;
