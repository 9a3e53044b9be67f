//! The line to the kernel's NBD client: one netlink socket, one question at a time.
//!
//! Knows sockets of the kernel and errno values; what the messages look like is `netlink`'s.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with,
};

use super::netlink::{Answer, Command, answers, get_family};

/// The kernel answers at once; when it does not, something is wrong with it.
const PATIENCE: Duration = Duration::from_secs(30);
/// More than any answer is long.
const ANSWER_LEN: usize = 64 << 10;

/// Why the kernel did not do it.
#[derive(Debug, thiserror::Error)]
pub(super) enum KernelError {
    /// It has no NBD client, or not loaded.
    #[error("the kernel has no NBD client; load it with `modprobe nbd`")]
    NoClient,
    /// It said no.
    #[error(transparent)]
    Refused(io::Error),
    /// It can not be asked.
    #[error("cannot speak netlink with the kernel: {0}")]
    Netlink(io::Error),
}

/// The line.
#[derive(Debug)]
pub(super) struct Kernel {
    socket: OwnedFd,
    family: u16,
    sequence: u32,
}

impl Kernel {
    /// Finds the client.
    pub(super) fn open() -> Result<Self, KernelError> {
        let open = || {
            let kind = SocketType::RAW;
            let socket =
                socket_with(AddressFamily::NETLINK, kind, SocketFlags::CLOEXEC, Some(netlink::GENERIC))?;
            bind(&socket, &SocketAddrNetlink::new(0, 0))?;
            set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
            Ok(socket)
        };
        let socket = open().map_err(|error: rustix::io::Errno| KernelError::Netlink(error.into()))?;
        let mut kernel = Self { socket, family: 0, sequence: 0 };
        let mut family = None;
        let question = get_family("nbd", kernel.next());
        let asked = kernel.ask(&question, |answer| {
            if let Answer::Data(told) = answer {
                family = family.or(told.family());
            }
        });
        match asked {
            Err(KernelError::Refused(error)) if error.kind() == io::ErrorKind::NotFound => {
                Err(KernelError::NoClient)
            }
            Err(error) => Err(error),
            Ok(()) => {
                kernel.family = family.ok_or(KernelError::NoClient)?;
                Ok(kernel)
            }
        }
    }

    /// Has the kernel do it.
    pub(super) fn run(&mut self, command: &Command) -> Result<(), KernelError> {
        let message = command.encode(self.family, self.next());
        self.ask(&message, |_| {})
    }

    /// Whether the device is connected.
    pub(super) fn is_connected(&mut self, index: u32) -> Result<bool, KernelError> {
        let message = Command::Status { index }.encode(self.family, self.next());
        let mut connected = false;
        self.ask(&message, |answer| {
            if let Answer::Data(told) = answer {
                connected |= told.is_connected(index) == Some(true);
            }
        })?;
        Ok(connected)
    }

    fn next(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    /// Sends a message and hears the answers up to its outcome.
    fn ask(&self, message: &[u8], mut hear: impl FnMut(&Answer)) -> Result<(), KernelError> {
        let failed = |error: rustix::io::Errno| KernelError::Netlink(error.into());
        send(&self.socket, message, SendFlags::empty()).map_err(failed)?;
        let mut buffer = vec![0; ANSWER_LEN];
        loop {
            let (got, _) = match recv(&self.socket, &mut buffer[..], RecvFlags::empty()) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other.map_err(failed)?,
            };
            for answer in answers(&buffer[..got], self.sequence) {
                match answer {
                    Answer::Done => return Ok(()),
                    Answer::Refused(errno) => {
                        return Err(KernelError::Refused(io::Error::from_raw_os_error(errno)));
                    }
                    Answer::Data(_) => hear(&answer),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This machine's kernel has the client or has it not; either way it is said plainly.
    #[test]
    fn a_kernel_without_the_client_is_told_from_one_with_it() {
        match Kernel::open() {
            Ok(mut kernel) => assert!(kernel.family > 16 && !kernel.is_connected(4000).unwrap_or(false)),
            Err(error) => assert!(error.to_string().contains("modprobe nbd"), "{error}"),
        }
    }
}
