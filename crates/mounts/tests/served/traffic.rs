//! What the kernel is told of a mount, byte by byte: this test asks as the kernel does, over a socket in the place of the device,
//! and looks for the credential in all that is answered. What a bucket holds is found there, so what is not found is not there.

use crate::real::Server;
use mounts::Limits;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, socketpair};
use std::os::fd::OwnedFd;

const CONTROL: &str = "kT9-control-93be57a1d04c2f86";
const KEY_ID: &str = "kT9-key-id-0c53d8e6f7aa21b4";
const SECRET: &str = "kT9-secret-6f1d0b7ac2e54918";
const TOKEN: &str = "kT9-token-55aa91c07d3e8b62";
/// Bytes of one answer at most.
const ANSWER_BYTES_MAX: usize = 2 << 20;

/// The kernel's side.
struct Kernel {
    socket: OwnedFd,
    unique: u64,
    heard: Vec<u8>,
}

impl Kernel {
    /// Asks, and gives the error number and the body of the answer.
    fn ask(&mut self, opcode: u32, node: u64, body: &[u8]) -> (i32, Vec<u8>) {
        self.unique += 1;
        let mut request = Vec::new();
        request.extend_from_slice(&u32::try_from(40 + body.len()).unwrap().to_ne_bytes());
        request.extend_from_slice(&opcode.to_ne_bytes());
        request.extend_from_slice(&self.unique.to_ne_bytes());
        request.extend_from_slice(&node.to_ne_bytes());
        request.extend_from_slice(&[0; 16]);
        request.extend_from_slice(body);
        rustix::net::send(&self.socket, &request, SendFlags::empty()).unwrap();
        let mut answer = vec![0; ANSWER_BYTES_MAX];
        let (length, _) = rustix::net::recv(&self.socket, &mut answer[..], RecvFlags::empty()).unwrap();
        answer.truncate(length);
        self.heard.extend_from_slice(&answer);
        let error = i32::from_ne_bytes(answer[4..8].try_into().unwrap());
        assert_eq!(answer[8..16], self.unique.to_ne_bytes());
        (-error, answer.split_off(16))
    }

    fn node(&mut self, parent: u64, name: &str) -> u64 {
        let (error, body) = self.ask(1, parent, format!("{name}\0").as_bytes());
        assert_eq!(error, 0, "{name}");
        u64::from_ne_bytes(body[..8].try_into().unwrap())
    }

    fn open(&mut self, opcode: u32, node: u64) -> u64 {
        let (error, body) = self.ask(opcode, node, &[0; 8]);
        assert_eq!(error, 0, "{node}");
        u64::from_ne_bytes(body[..8].try_into().unwrap())
    }

    fn has(&self, word: &str) -> bool {
        self.heard.windows(word.len()).any(|part| part == word.as_bytes())
    }
}

fn read(handle: u64, offset: u64, bytes: u32) -> Vec<u8> {
    let mut body = [handle.to_ne_bytes(), offset.to_ne_bytes()].concat();
    body.extend_from_slice(&bytes.to_ne_bytes());
    body.resize(40, 0);
    body
}

/// Everything that a kernel asks of a read-only file system, and some that it does not.
fn talk(kernel: &mut Kernel) {
    let begin: Vec<u8> = [7_u32, 31, 1 << 17, u32::MAX].iter().flat_map(|number| number.to_ne_bytes()).collect();
    assert_eq!(kernel.ask(26, 0, &begin).0, 0);
    assert_eq!(kernel.ask(17, 1, &[]).0, 0, "statistics");
    let top = kernel.open(27, 1);
    assert_eq!(kernel.ask(44, 1, &read(top, 0, 64 << 10)).0, 0, "a directory with all that is known of its entries");
    assert_eq!(kernel.ask(28, 1, &read(top, 0, 64 << 10)).0, 0);
    let directory = kernel.node(1, "deep");
    let file = kernel.node(directory, "file");
    assert_eq!(kernel.ask(3, file, &[0; 16]).0, 0, "attributes");
    let handle = kernel.open(14, file);
    let (error, body) = kernel.ask(15, file, &read(handle, 0, 4_096));
    assert_eq!((error, body.as_slice()), (0, CONTROL.as_bytes()));
    // What is not there, can't be had, or is not known.
    for (opcode, node, body) in [
        (1, 1, b"none\0".to_vec()),
        (1, file, b"below\0".to_vec()),
        (3, 777, vec![0; 16]),
        (14, 777, vec![0; 8]),
        (15, file, read(999, 0, 10)),
        (22, file, [&[0; 8][..], b"user.key\0"].concat()),
        (23, file, vec![0; 8]),
        (5, file, Vec::new()),
        (39, file, vec![0; 32]),
        (16, file, vec![0; 40]),
        (99, 1, Vec::new()),
        (1, 1, b"no end".to_vec()),
    ] {
        let (error, body) = kernel.ask(opcode, node, &body);
        // A name that is not there is an answer: that it is not.
        assert!(error != 0 || body[..8] == [0; 8], "{opcode}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_to_the_kernel_holds_a_credential() {
    let server = Server::with_keys(KEY_ID, SECRET).await;
    server.put("deep/file", CONTROL);
    server.put("other", "x");
    for right in [true, false] {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        rustix::net::sockopt::set_socket_send_buffer_size(&theirs, ANSWER_BYTES_MAX).unwrap();
        let mut settings = crate::support::settings(server.port());
        settings.access_key_id = KEY_ID.to_owned();
        settings.secret_access_key = if right { SECRET.to_owned() } else { format!("{SECRET}-wrong") };
        settings.session_token = (!right).then(|| TOKEN.to_owned());
        let bucket = blob::Bucket::new(&settings, net::Client::new(net::Settings::default()).unwrap(), 5_000).unwrap();
        let served = tokio::spawn(mounts::serve(theirs, bucket, "", (1_000, 1_000), Limits::default()));
        let kernel = Kernel { socket: ours, unique: 0, heard: Vec::new() };
        let kernel = tokio::task::spawn_blocking(move || {
            let mut kernel = kernel;
            if right {
                talk(&mut kernel);
            } else {
                // The storage says no, and so does this: with a number, never with its words.
                let begin: Vec<u8> = [7_u32, 31, 1 << 17, 0].iter().flat_map(|number| number.to_ne_bytes()).collect();
                kernel.ask(26, 0, &begin);
                for (opcode, body) in [(27, vec![0; 8]), (1, b"deep\0".to_vec())] {
                    let (error, body) = kernel.ask(opcode, 1, &body);
                    assert_eq!((error, body.len()), (13, 0), "{opcode}: EACCES");
                }
            }
            kernel
        })
        .await
        .unwrap();
        assert_eq!(kernel.has(CONTROL), right, "what the bucket holds is found");
        for word in [KEY_ID, SECRET, TOKEN, "AWS4", "Signature", "Authorization", "x-amz", "127.0.0.1"] {
            assert!(!kernel.has(word), "{word}");
        }
        drop(kernel);
        served.abort();
    }
}
