//! Models over both wires against a real endpoint on the loopback interface: what is sent, what is understood, what is retried,
//! what every failure is called.

#[cfg(test)]
mod failures;
#[cfg(test)]
mod fake;
#[cfg(test)]
mod opening;
#[cfg(test)]
mod replies;
#[cfg(test)]
mod requests;
