//! A disk that is full in the middle of a run: what can't be recorded is refused, and with room again all goes on. The service runs
//! in a mount namespace of its own, on a small file system of its own; both are gone with it.

use crate::kit::{Project, Said, kind};
use crate::service::{Service, skipped, text};
use crate::witness::Witness;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

const DISK_BYTES: u64 = 48 << 20;
/// Runs that are asked for on a disk that is full, until one is refused.
const RUNS_MAX: usize = 2_000;

const SCRIPT: &str = r#"title: held
steps:
- expect: {user: 'Go'}
  reply:
  - call: {id: hold, tool: hold, arguments: {text: it}}
- expect: {outputs: {hold: 'told'}}
  reply:
  - text: "Held to the end."
- expect: {user: 'Short'}
  reply:
  - text: "Yes."
"#;

struct Disk {
    image: PathBuf,
    mounted: PathBuf,
}

impl Disk {
    /// A small file system in a file of the project; `None` where it can't be made or mounted.
    fn make(project: &Project) -> Option<Self> {
        let disk = Self { image: project.path().join("disk.img"), mounted: project.path().join("disk") };
        std::fs::create_dir(&disk.mounted).unwrap();
        std::fs::File::create(&disk.image).unwrap().set_len(DISK_BYTES).unwrap();
        let made = Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&disk.image).output();
        let is_made = made.is_ok_and(|made| made.status.success());
        (is_made && disk.within("true").output().is_ok_and(|tried| tried.status.success())).then_some(disk)
    }

    /// A program with the disk mounted, for as long as it runs.
    fn within(&self, program: &str) -> Command {
        let mut command = Command::new("unshare");
        let line = "mount -o loop \"$1\" \"$2\" && shift 2 && exec \"$@\"";
        command.args(["--mount", "sh", "-c", line, "sh"]).arg(&self.image).arg(&self.mounted).arg(program);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").stdin(Stdio::null());
        command
    }

    /// The binary, its data on the disk.
    fn topside(&self, project: &Project, arguments: &[&str]) -> Command {
        let mut command = self.within(env!("CARGO_BIN_EXE_topside"));
        command.args(arguments).arg("--data").arg(self.mounted.join("data")).current_dir(project.path());
        command
    }
}

/// The disk as the service sees it.
fn seen_by(service: &Service, disk: &Disk) -> PathBuf {
    PathBuf::from(format!("/proc/{}/root{}", service.process(), disk.mounted.display()))
}

/// Writes until nothing more fits.
fn fill(path: &std::path::Path) {
    let mut file = std::fs::File::create(path).unwrap();
    for size in [1 << 20, 64 << 10, 4 << 10, 1] {
        let block = vec![7; size];
        while file.write_all(&block).and_then(|()| file.sync_data()).is_ok() {}
    }
    assert!(file.write_at(&[7; 4096], file.metadata().unwrap().len() + 4096).is_err(), "the disk has room");
}

#[test]
fn a_run_goes_on_when_a_full_disk_has_room_again() {
    let witness = Witness::start();
    let project = Project::of(&[
        ("topside.yaml", "default_agent: worker\n"),
        ("agents/worker.md", "---\nmodel: main\ntools: [hold]\n---\nYou hold.\n"),
        ("models/main.yaml", "main: {provider: script, transcript: main.yaml}\n"),
        ("main.yaml", SCRIPT),
        ("tools/hold.yaml", &witness.tool("/hold", "")),
        ("policies/open.cedar", "@id(\"open\")\npermit (principal, action, resource);\n"),
    ]);
    let Some(disk) = Disk::make(&project) else {
        return skipped("a_run_goes_on_when_a_full_disk_has_room_again", "no file system of its own can be mounted");
    };
    let service = Service::of(disk.topside(&project, &["serve", "--listen", "127.0.0.1:0"]));
    let run = service.begin("s", "Go.");
    witness.until(1);
    let filler = seen_by(&service, &disk).join("filler");
    fill(&filler);
    let taken = until_refused(&service);
    let ready = service.get("/readyz");
    assert_eq!(ready.refusal(), "503 not_ready", "{ready:?}");
    assert!(text(&ready.json(), "detail").contains("disk is full"), "the reason is not told: {ready:?}");
    assert_eq!(service.get("/healthz").status, 200, "a full disk is no reason to be restarted");
    service.until_logged("the disk is full; hint: make room in the data directory", 1);
    // The tool answers, and nobody can write that down: the run stands where it was, and is not lost.
    witness.release();
    witness.until_answered();
    for _ in 0..20 {
        assert_eq!(service.run(&run)["status"], "running");
        assert_eq!(service.get("/readyz").status, 503);
    }
    std::fs::remove_file(&filler).unwrap();
    service.until("/readyz", |answer| answer.status == 200);
    assert_eq!(text(&service.standing(&run, "completed"), "reply"), "Held to the end.");
    for run in &taken {
        assert_eq!(text(&service.standing(run, "completed"), "reply"), "Yes.");
    }
    service.standing(&service.begin("after", "Short."), "completed");
    assert_eq!(witness.requests().len(), 1, "the call was made again");
    service.kill();
    let said = Said::of(disk.topside(&project, &["log", "s", "--json", "--verify"]).output().unwrap()).ended(0);
    let returned = said.json().iter().filter(|line| kind(&line["record"]) == "returned").count();
    assert_eq!(returned, 1, "{}", said.data);
}

/// Asks for runs until one is refused; gives those that were taken.
fn until_refused(service: &Service) -> Vec<String> {
    let mut taken = Vec::new();
    for number in 0..RUNS_MAX {
        let body = format!(r#"{{"session": "more-{number}", "message": "Short."}}"#);
        let answer = service.ask("POST", "/runs", &["Prefer: respond-async"], &body);
        if answer.status != 202 && answer.status != 200 {
            assert_eq!(answer.refusal(), "503 journal_full");
            return taken;
        }
        taken.push(text(&answer.json(), "run_id"));
    }
    panic!("nothing is refused on a disk that is full");
}
