//! What is denied inside is tried inside: by a thread of the test that goes in and is over.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use rustix::fs::{FileType, Mode};
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use super::*;

/// Does `work` in a sandbox of its own.
fn inside<T: Send + 'static>(role: Role, reach: Reach, work: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = std::thread::spawn(move || {
        // as the program does before, and no filter comes in force without
        rustix::thread::set_no_new_privs(true).unwrap();
        enter(role, &reach).unwrap();
        work()
    });
    thread.join().unwrap()
}

/// Whether this kernel knows landlock.
fn has_landlock() -> bool {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x");
    fs::write(&file, "x").unwrap();
    let denied = inside(Role::Processor, Reach::default(), move || fs::read(file).is_err());
    if !denied {
        crate::not_run::say("the paths of the sandbox", "this kernel has no landlock");
    }
    denied
}

fn denied<T>(result: std::io::Result<T>) -> bool {
    result.is_err_and(|e| e.kind() == ErrorKind::PermissionDenied)
}

#[test]
fn paths_that_are_not_named_are_not_there_and_named_ones_do_what_they_are_for() {
    if !has_landlock() {
        return;
    }
    let tmp = tempfile::tempdir().unwrap();
    let at = |name: &str| tmp.path().join(name);
    for dir in ["certs", "elsewhere", "other"] {
        fs::create_dir(at(dir)).unwrap();
        fs::write(at(dir).join("x"), "x").unwrap();
    }
    symlink(at("elsewhere/x"), at("certs/link")).unwrap();
    let mut reach = Reach::default();
    reach.reads([&at("certs/key"), &at("certs/link")]);
    reach.writes_into(&at("made/out"), Readers::NONE);
    reach.writes_file(&at("made/file.pcap"), Readers::NONE);
    let root = tmp.path().to_path_buf();

    let answers = inside(Role::Processor, reach, move || {
        let at = |name: &str| root.join(name);
        let works = [
            fs::read(at("certs/x")).is_ok(),
            fs::read(at("certs/link")).is_ok(),
            fs::write(at("made/out/a"), "a").is_ok(),
            fs::rename(at("made/out/a"), at("made/b")).is_ok(),
            fs::OpenOptions::new().append(true).open(at("made/b")).and_then(|f| f.set_len(0)).is_ok(),
            fs::create_dir(at("made/out/d")).is_ok() && fs::remove_dir(at("made/out/d")).is_ok(),
            fs::remove_file(at("made/b")).is_ok(),
            fs::read_to_string("/proc/thread-self/status")
                .is_ok_and(|s| s.contains("Seccomp:\t2") && s.contains("NoNewPrivs:\t1")),
            fs::File::open("/dev/urandom").is_ok(),
            std::thread::spawn(|| 7).join().is_ok_and(|n| n == 7),
            std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| std::net::TcpStream::connect(l.local_addr()?)).is_ok(),
        ];
        let refused = [
            denied(fs::read(at("other/x"))),
            denied(fs::read_dir(at("other"))),
            denied(fs::write(at("certs/x"), "y")),
            denied(fs::write(at("certs/new"), "y")),
            denied(fs::remove_file(at("certs/x"))),
            denied(fs::rename(at("certs/x"), at("certs/y"))),
            denied(fs::rename(at("other/x"), at("made/out/x"))) || fs::read(at("made/out/x")).is_err(),
            denied(fs::hard_link(at("other/x"), at("made/out/x"))) || fs::read(at("made/out/x")).is_err(),
            denied(symlink("/etc/passwd", at("made/out/s"))),
            denied(fs::read_dir("/root")),
            denied(fs::read_dir("/home")),
            denied(fs::read_dir("/var")),
            denied(fs::read_dir("/")),
            denied(fs::write("/etc/lc-was-here", "y")),
            denied(fs::write("/tmp/lc-was-here", "y")),
            denied(fs::write("/dev/shm/lc-was-here", "y")),
            denied(fs::write("/proc/sys/kernel/hostname", "y")),
        ];
        (works, refused)
    });

    assert_eq!(answers.0, [true; 11], "these work");
    assert_eq!(answers.1, [true; 17], "these are refused");
    // whoever stands outside is free
    assert!(fs::read(at("other/x")).is_ok());
    assert_eq!(fs::metadata(at("made/out")).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_certificate_may_be_replaced_by_renaming_and_is_read_again() {
    let tmp = tempfile::tempdir().unwrap();
    let cert = tmp.path().join("own.crt");
    fs::write(&cert, "old").unwrap();
    let mut reach = Reach::default();
    reach.reads([&cert]);
    let (to_replace, replaced) = std::sync::mpsc::channel();
    let read = cert.clone();

    let inside = std::thread::spawn(move || {
        inside(Role::Hunter, reach, move || {
            let before = fs::read_to_string(&read).unwrap();
            replaced.recv().unwrap();
            (before, fs::read_to_string(&read).unwrap())
        })
    });
    fs::write(tmp.path().join("new"), "new").unwrap();
    fs::rename(tmp.path().join("new"), &cert).unwrap();
    to_replace.send(()).unwrap();

    let (_before, after) = inside.join().unwrap();
    assert_eq!(after, "new");
}

/// Whether the call is denied as the sandbox does it.
fn eperm<T>(result: Result<T, Errno>) -> bool {
    result.is_err_and(|e| e == Errno::PERM)
}

#[test]
fn calls_that_no_role_needs_are_refused_also_to_root() {
    let tmp = tempfile::tempdir().unwrap();
    let mut reach = Reach::default();
    reach.writes_into(tmp.path(), Readers::NONE);
    let root = tmp.path().to_path_buf();

    let refused = inside(Role::Hunter, reach, move || {
        let parent = rustix::process::Pid::from_raw(std::os::unix::process::parent_id().cast_signed()).unwrap();
        let other = |domain| Socket::new(Domain::from(domain), Type::STREAM, None::<Protocol>);
        let node = rustix::fs::open(&root, rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY, Mode::empty()).unwrap();
        [
            Command::new("/bin/true").spawn().is_err(),
            Command::new("/bin/true").status().is_err(),
            denied(std::os::unix::fs::chroot(Path::new("/"))),
            eperm(rustix::process::test_kill_process(parent)),
            eperm(rustix::process::pidfd_open(parent, rustix::process::PidfdFlags::empty())),
            eperm(rustix::fs::mknodat(&node, "null", FileType::CharacterDevice, Mode::RUSR, rustix::fs::makedev(1, 3))),
            eperm(rustix::fs::mknodat(&node, "fifo", FileType::Fifo, Mode::RUSR, 0)),
            eperm(rustix::thread::set_thread_uid(rustix::process::geteuid())),
            eperm(rustix::thread::set_thread_gid(rustix::process::getegid())),
            eperm(rustix::thread::set_thread_groups(&[])),
            denied(other(libc::AF_VSOCK)),
            denied(other(libc::AF_ALG)),
            denied(other(libc::AF_BLUETOOTH)),
        ]
    });

    assert_eq!(refused, [true; 13]);
}

#[test]
fn only_a_hunter_opens_packet_sockets() {
    let open = || Socket::new(Domain::from(libc::AF_PACKET), Type::from(libc::SOCK_RAW), None).map(drop);
    let outside = open();

    assert!(denied(inside(Role::Processor, Reach::default(), open)));

    let hunter = inside(Role::Hunter, Reach::default(), open);
    assert_eq!(hunter.is_ok(), outside.is_ok(), "as far as it may: {hunter:?}");
}
