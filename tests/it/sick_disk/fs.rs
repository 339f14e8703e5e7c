//! A [`Platter`] as a file system of the kernel (FUSE). Every read and write comes here: nothing of a file or a name is remembered on the way.

use std::ffi::OsStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner, OpenFlags, RenameFlags,
    ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request,
    TimeOrNow, WriteFlags,
};
use parking_lot::Mutex;

use super::platter::{Dir, File, Node, Platter, ROOT, SIZE, What};

/// For how long the kernel may believe an answer.
const NEVER: Duration = Duration::ZERO;
const BLOCK: u32 = 4096;
/// Files are not many, and are never made anew with a number that there was.
const FIRST: Generation = Generation(0);
const ANY: FileHandle = FileHandle(0);

/// The file system; a test keeps the other end.
pub(super) struct Sick(pub(super) Arc<Mutex<Platter>>);

fn attr(number: u64, node: &Node) -> FileAttr {
    let (kind, size) = match &node.what {
        What::File(file) => (FileType::RegularFile, file.seen.len() as u64),
        What::Dir(_) => (FileType::Directory, 0),
    };
    let time = SystemTime::UNIX_EPOCH;
    FileAttr {
        ino: INodeNo(number),
        size,
        blocks: size.div_ceil(512),
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind,
        perm: u16::try_from(node.mode & 0o7777).unwrap(),
        nlink: if kind == FileType::Directory { 2 } else { 1 },
        uid: node.owner.0,
        gid: node.owner.1,
        rdev: 0,
        blksize: BLOCK,
        flags: 0,
    }
}

impl Sick {
    fn made(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, what: What) -> Result<FileAttr, Errno> {
        let mut platter = self.0.lock();
        let number = platter.make(parent.0, name, Node { mode, owner: (req.uid(), req.gid()), what })?;
        Ok(attr(number, platter.node(number)?))
    }
}

fn entry(of: Result<FileAttr, Errno>, reply: ReplyEntry) {
    match of {
        Ok(attr) => reply.entry(&NEVER, &attr, FIRST),
        Err(e) => reply.error(e),
    }
}

fn done(of: Result<(), Errno>, reply: ReplyEmpty) {
    match of {
        Ok(()) => reply.ok(),
        Err(e) => reply.error(e),
    }
}

impl Filesystem for Sick {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let mut platter = self.0.lock();
        let found = platter.find(parent.0, name).and_then(|number| Ok(attr(number, platter.node(number)?)));
        entry(found, reply);
    }

    fn getattr(&self, _: &Request, of: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.0.lock().node(of.0) {
            Ok(node) => reply.attr(&NEVER, &attr(of.0, node)),
            Err(e) => reply.error(e),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        of: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut platter = self.0.lock();
        let sized = size.map_or(Ok(()), |len| platter.resize(of.0, len));
        match sized.and_then(|()| platter.node(of.0)) {
            Ok(node) => {
                node.mode = mode.unwrap_or(node.mode);
                node.owner = (uid.unwrap_or(node.owner.0), gid.unwrap_or(node.owner.1));
                reply.attr(&NEVER, &attr(of.0, node));
            }
            Err(e) => reply.error(e),
        }
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        entry(self.made(req, parent, name, mode & !umask, What::Dir(Dir::default())), reply);
    }

    fn create(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, _: i32, reply: ReplyCreate) {
        match self.made(req, parent, name, mode & !umask, What::File(File::default())) {
            Ok(attr) => reply.created(&NEVER, &attr, FIRST, ANY, FopenFlags::FOPEN_DIRECT_IO),
            Err(e) => reply.error(e),
        }
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(self.0.lock().remove(parent.0, name), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(self.0.lock().remove(parent.0, name), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        to: INodeNo,
        new: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let replace = !flags.contains(RenameFlags::RENAME_NOREPLACE);
        done(self.0.lock().rename((parent.0, name), (to.0, new), replace), reply);
    }

    fn open(&self, _: &Request, of: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let cut = flags.0 & libc::O_TRUNC != 0;
        match if cut { self.0.lock().resize(of.0, 0) } else { Ok(()) } {
            Ok(()) => reply.opened(ANY, FopenFlags::FOPEN_DIRECT_IO),
            Err(e) => reply.error(e),
        }
    }

    fn read(
        &self,
        _: &Request,
        of: INodeNo,
        _: FileHandle,
        at: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.0.lock().file(of.0) {
            Ok(file) => {
                let from = usize::try_from(at).unwrap().min(file.seen.len());
                let to = (from + size as usize).min(file.seen.len());
                reply.data(&file.seen[from..to]);
            }
            Err(e) => reply.error(e),
        }
    }

    fn write(
        &self,
        _: &Request,
        of: INodeNo,
        _: FileHandle,
        at: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.0.lock().write(of.0, at, data) {
            Ok(()) => reply.written(u32::try_from(data.len()).unwrap()),
            Err(e) => reply.error(e),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, of: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        done(self.0.lock().sync(of.0), reply);
    }

    fn fsyncdir(&self, _: &Request, of: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        done(self.0.lock().sync(of.0), reply);
    }

    fn readdir(&self, _: &Request, of: INodeNo, _: FileHandle, at: u64, mut reply: ReplyDirectory) {
        let mut platter = self.0.lock();
        let names = match platter.dir(of.0) {
            Ok(dir) => dir.seen.clone(),
            Err(e) => return reply.error(e),
        };
        let kind = |number| match platter.nodes.get(&number).map(|n| &n.what) {
            Some(What::Dir(_)) => FileType::Directory,
            _ => FileType::RegularFile,
        };
        let around = [(".".into(), of.0), ("..".into(), ROOT)];
        for (offset, (name, number)) in (1..).zip(around.into_iter().chain(names)).skip(usize::try_from(at).unwrap()) {
            if reply.add(INodeNo(number), offset, kind(number), name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let blocks = |bytes: u64| bytes / u64::from(BLOCK);
        let free = blocks(self.0.lock().free());
        reply.statfs(blocks(SIZE), free, free, 1 << 20, 1 << 19, BLOCK, 255, BLOCK);
    }
}
