//! Less power before anything hostile is read: `--user`, and what every long-running command gives up.
//!
//! ```text
//! configuration, certificates, keys read ─▶ groups, group, user ─▶ capabilities: one or none ─▶ threads, sockets, packets
//! ```
//! It happens while the process has one thread, since Linux keeps credentials per thread and every later thread is born with those of the
//! first; and before the first socket: capturing needs `CAP_NET_RAW` alone, which is kept for it, so that an interface that comes back
//! can be opened again. What is read again later (certificates, filters) must be readable by the new user.
//!
//! Promises: there is no way back: no capability but the kept one, none to be gained by executing a file (`PR_SET_NO_NEW_PRIVS`), no core
//! dump and no debugger of the same user (`PR_SET_DUMPABLE` 0).

use std::fs;

use anyhow::Context;
use rustix::process::{DumpableBehavior, Gid, Uid, getegid, geteuid, getgroups, set_dumpable_behavior};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, set_capabilities, set_keep_capabilities,
    set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use crate::record::readers::Readers;

use super::exit::Stop;

/// Largest user or group file that is read.
const FILE_MAX: u64 = 16 << 20;

/// What a command goes on needing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    /// Nothing.
    Nothing,
    /// To capture: `CAP_NET_RAW`.
    Capture,
    /// To listen below port 1024: `CAP_NET_BIND_SERVICE`.
    LowPort,
}

impl Needs {
    const fn capability(self) -> CapabilitySet {
        match self {
            Self::Nothing => CapabilitySet::empty(),
            Self::Capture => CapabilitySet::NET_RAW,
            Self::LowPort => CapabilitySet::NET_BIND_SERVICE,
        }
    }
}

/// Becomes `user`, where one is given, and gives up what this command does not need. Started as root, it is a member of the group of
/// `readers` from here on, so that it may give files to it; else it must be one already.
pub(super) fn drop_to(user: Option<&str>, needs: Needs, readers: Readers) -> Result<(), Stop> {
    if fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() > 1) {
        return Err(anyhow::anyhow!("cannot give up privileges: threads run already; this is a bug, please report it").into());
    }
    set_no_new_privs(true).context("cannot give up gaining privileges (PR_SET_NO_NEW_PRIVS)")?;
    if let Some(name) = user {
        let mut account = Account::find(name)?;
        account.groups.extend(readers.id());
        account.become_it(needs).with_context(|| format!("cannot become the user '{name}'"))?;
        tracing::info!(user = name, uid = account.uid, gid = account.gid, keeps = ?needs, "privileges dropped");
    } else if !geteuid().is_root() {
        // given by the file or by systemd: the rest of them is not for us
        keep(needs).context("cannot give up capabilities")?;
    } else if let Some(group) = readers.id() {
        let (mut groups, group) = (getgroups().context("cannot read the groups of this process")?, Gid::from_raw(group));
        if group != getegid() && !groups.contains(&group) {
            groups.push(group);
            set_thread_groups(&groups).context("cannot become a member of --pcap-group (setgroups)")?;
        }
    }
    set_dumpable_behavior(DumpableBehavior::NotDumpable).context("cannot forbid core dumps (PR_SET_DUMPABLE)")?;
    Ok(())
}

/// The group that may read what is written, by name, from the file of group(5), or by number.
pub(super) fn readers(group: Option<&str>) -> Result<Readers, Stop> {
    let Some(name) = group else { return Ok(Readers::NONE) };
    if let Ok(id) = name.parse() {
        // chown(2) takes the highest for "leave it"
        return if id == u32::MAX { Err(Stop::usage(format!("--pcap-group: {id} is no group"))) } else { Ok(Readers::group(id)) };
    }
    let Some(id) = group_of(name, &read("/etc/group", "--pcap-group as a number")?) else {
        return Err(Stop::usage(format!("--pcap-group: there is no group '{name}' in /etc/group; make one, or give its number")));
    };
    Ok(Readers::group(id))
}

fn group_of(name: &str, group: &str) -> Option<u32> {
    let fields = group.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|f| f.first() == Some(&name))?;
    fields.get(2)?.parse().ok()
}

/// A file of accounts; where it is too large, `instead` can be given.
fn read(path: &str, instead: &str) -> Result<String, Stop> {
    let length = fs::metadata(path).with_context(|| format!("cannot read {path}"))?.len();
    if length > FILE_MAX {
        return Err(anyhow::anyhow!("{path} is larger than 16 MiB; give {instead}").into());
    }
    Ok(fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?)
}

/// Gives up what root has beyond the needs and the files of others: what a sandbox is for is not left to root's powers.
pub(super) fn shed(needs: Needs) -> Result<(), Stop> {
    if geteuid().is_root() {
        keep_these(needs.capability() | CapabilitySet::DAC_OVERRIDE).context("cannot give up capabilities")?;
    }
    Ok(())
}

/// Who a process becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Account {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
}

impl Account {
    /// By name, from the files of passwd(5) and group(5), or as `UID:GID`.
    fn find(name: &str) -> Result<Self, Stop> {
        if let Some((uid, gid)) = name.split_once(':') {
            let (Ok(uid), Ok(gid)) = (uid.parse(), gid.parse()) else {
                return Err(Stop::usage(format!("--user: '{name}' is neither a name nor UID:GID")));
            };
            return Self { uid, gid, groups: Vec::new() }.unless_root(name);
        }
        let read = |path| read(path, "--user as UID:GID");
        let Some(account) = Self::parse(name, &read("/etc/passwd")?, &read("/etc/group")?) else {
            return Err(Stop::usage(format!("--user: there is no user '{name}' in /etc/passwd; make one, or give UID:GID")));
        };
        account.unless_root(name)
    }

    fn unless_root(self, name: &str) -> Result<Self, Stop> {
        if self.uid == 0 {
            return Err(Stop::usage(format!("--user: '{name}' is root, so nothing would be given up")));
        }
        Ok(self)
    }

    fn parse(name: &str, passwd: &str, group: &str) -> Option<Self> {
        let line = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|f| f.first() == Some(&name))?;
        let (uid, gid) = (line.get(2)?.parse().ok()?, line.get(3)?.parse().ok()?);
        let mut groups = Vec::new();
        for line in group.lines() {
            let fields: Vec<&str> = line.split(':').collect();
            let member = fields.get(3).is_some_and(|members| members.split(',').any(|m| m == name));
            if let Some(gid) = fields.get(2).filter(|_| member).and_then(|gid| gid.parse().ok()) {
                groups.push(gid);
            }
        }
        Some(Self { uid, gid, groups })
    }

    fn become_it(&self, needs: Needs) -> anyhow::Result<()> {
        if geteuid().as_raw() != self.uid {
            let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
            let groups: Vec<Gid> = self.groups.iter().map(|g| Gid::from_raw(*g)).collect();
            set_thread_groups(&groups).context("setgroups; --user is for a start as root")?;
            set_thread_res_gid(gid, gid, gid).context("setresgid")?;
            // what is kept now is what comes through the change of user
            set_keep_capabilities(true).context("prctl")?;
            set_thread_res_uid(uid, uid, uid).context("setresuid")?;
        }
        keep(needs)
    }
}

/// Gives up every capability but the needed one, for good.
fn keep(needs: Needs) -> anyhow::Result<()> {
    keep_these(needs.capability())
}

fn keep_these(wanted: CapabilitySet) -> anyhow::Result<()> {
    let kept = capabilities(None)?.permitted & wanted;
    set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() })?;
    clear_ambient_capability_set()?;
    set_keep_capabilities(false)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nlc:x:990:980::/var/lib/lc:/usr/sbin/nologin\nbroken:x:one\n";
    const GROUP: &str = "root:x:0:\nlc:x:980:\nadm:x:4:syslog,lc\npcap:x:77:lc\nother:x:5:lcd\n";

    #[test]
    fn a_user_has_the_groups_that_name_it() {
        let account = Account::parse("lc", PASSWD, GROUP).unwrap();

        assert_eq!(account, Account { uid: 990, gid: 980, groups: vec![4, 77] });
        assert_eq!(Account::parse("l", PASSWD, GROUP), None);
        assert_eq!(Account::parse("broken", PASSWD, GROUP), None);
    }

    #[test]
    fn a_group_is_a_name_or_a_number() {
        assert_eq!((group_of("pcap", GROUP), group_of("pca", GROUP)), (Some(77), None));
        assert_eq!(readers(Some("4711")).unwrap(), Readers::group(4711));
        assert_eq!(readers(None).unwrap(), Readers::NONE);
        assert!(readers(Some("4294967295")).unwrap_err().to_string().contains("is no group"));
        assert!(readers(Some("no-such-group-here")).unwrap_err().to_string().contains("no group 'no-such-group-here'"));
    }

    #[test]
    fn root_is_nobody_to_drop_to() {
        assert!(Account::find("0:0").unwrap_err().to_string().contains("is root"));
        assert_eq!(Account::find("65534:65534").unwrap().uid, 65_534);
        assert!(Account::find("no-such-user-here").unwrap_err().to_string().contains("UID:GID"));
        assert!(Account::find("1:x").is_err());
    }
}
