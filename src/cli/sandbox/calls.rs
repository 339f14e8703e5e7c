//! System calls that neither role has a use for; each fails with EPERM.
//!
//! A list of what is denied, not of what is allowed: libraries may find new ways to do harmless things, and a capture that stops for it
//! would be the greater harm. What is on it gives power over other processes, the kernel, the clock or the machine, starts programs, or
//! leads around the other restrictions.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
    apply_filter,
};

/// Who is restricted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Role {
    /// Opens packet sockets.
    Hunter,
    Processor,
}

/// Denied whatever the arguments are.
const DENIED: &[i64] = &[
    // other programs
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_chroot,
    libc::SYS_pivot_root,
    // other processes
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_kcmp,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_tkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    // file systems
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_mknodat,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_quotactl,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    // the kernel and the machine
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_syslog,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_personality,
    libc::SYS_vhangup,
    // the clock
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    // who it is
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_setgroups,
    libc::SYS_capset,
];

#[cfg(target_arch = "x86_64")]
const DENIED_HERE: &[i64] = &[
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_mknod,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
    libc::SYS_kexec_file_load,
];
#[cfg(not(target_arch = "x86_64"))]
const DENIED_HERE: &[i64] = &[];

/// Puts a character into a terminal's input (`ioctl_tty(2)`).
const TIOCSTI: u64 = 0x5412;

/// Restricts this thread and those it starts; false: not known how on this processor.
pub(super) fn restrict(role: Role) -> anyhow::Result<bool> {
    let Ok(arch) = TargetArch::try_from(std::env::consts::ARCH) else { return Ok(false) };
    apply_filter(&threads_by_clone(arch)?)?;
    #[cfg(target_arch = "x86_64")]
    apply_filter(&foreign_numbers())?;
    apply_filter(&denied(role, arch)?)?;
    Ok(true)
}

fn denied(role: Role, arch: TargetArch) -> anyhow::Result<BpfProgram> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = DENIED.iter().chain(DENIED_HERE).map(|call| (*call, Vec::new())).collect();
    let mut when = |call: i64, conditions: &[(u8, SeccompCmpOp, u64)]| -> anyhow::Result<()> {
        let each = conditions.iter().map(|(n, op, value)| SeccompCondition::new(*n, SeccompCmpArgLen::Dword, op.clone(), *value));
        rules.entry(call).or_default().push(SeccompRule::new(each.collect::<Result<_, _>>()?)?);
        Ok(())
    };
    let flag = |bits: i32| u64::from(bits.unsigned_abs());
    let lacks = |bits: i32| SeccompCmpOp::MaskedEq(flag(bits));
    // threads are started, processes are not
    when(libc::SYS_clone, &[(0, lacks(libc::CLONE_THREAD), 0)])?;
    // signals go to this process alone
    let own = u64::from(std::process::id());
    when(libc::SYS_kill, &[(0, SeccompCmpOp::Ne, own)])?;
    when(libc::SYS_tgkill, &[(0, SeccompCmpOp::Ne, own)])?;
    // memory is written or executed, never both
    let both = libc::PROT_WRITE | libc::PROT_EXEC;
    for call in [libc::SYS_mmap, libc::SYS_mprotect, libc::SYS_pkey_mprotect] {
        when(call, &[(2, SeccompCmpOp::MaskedEq(flag(both)), flag(both))])?;
    }
    when(libc::SYS_ioctl, &[(1, SeccompCmpOp::Eq, TIOCSTI)])?;
    let mut families = vec![libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
    if role == Role::Hunter {
        families.push(libc::AF_PACKET);
    }
    let others: Vec<_> = families.into_iter().map(|family| (0, SeccompCmpOp::Ne, flag(family))).collect();
    when(libc::SYS_socket, &others)?;
    compile(rules, libc::EPERM, arch)
}

/// The flags of `clone3` lie in memory, where no filter can see them: glibc is told that there is no such call, and uses `clone`.
fn threads_by_clone(arch: TargetArch) -> anyhow::Result<BpfProgram> {
    compile(BTreeMap::from([(libc::SYS_clone3, Vec::new())]), libc::ENOSYS, arch)
}

fn compile(rules: BTreeMap<i64, Vec<SeccompRule>>, error: i32, arch: TargetArch) -> anyhow::Result<BpfProgram> {
    let refuse = SeccompAction::Errno(error.unsigned_abs());
    Ok(SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch)?.try_into()?)
}

/// Calls by the numbers of the x32 ABI, where every call has a second one (seccomp(2), "caveats").
#[cfg(target_arch = "x86_64")]
fn foreign_numbers() -> BpfProgram {
    /// `__X32_SYSCALL_BIT`
    const X32: u32 = 0x4000_0000;
    let step = |code: u32, jt, jf, k| seccompiler::sock_filter { code: u16::try_from(code).unwrap_or(0), jt, jf, k };
    let refused = libc::SECCOMP_RET_ERRNO | libc::EPERM.unsigned_abs();
    vec![
        // the number stands at the beginning of seccomp_data
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 0, 1, X32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, refused),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]
}
