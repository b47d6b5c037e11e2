//! The client against real servers on the loopback interface: exchanges and their limits, vetting, redirects, proxies, TLS.

#[cfg(test)]
mod exchange;
#[cfg(test)]
mod proxy;
#[cfg(test)]
mod redirect;
#[cfg(test)]
mod server;
#[cfg(test)]
mod tls;
#[cfg(test)]
mod vetting;
