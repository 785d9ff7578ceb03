//! The program and the libraries of a process, with their unwind tables.

use std::collections::BTreeMap;
use std::error::Error;
use std::ops::Range;

use framehop::{ExplicitModuleSectionInfo, MayAllocateDuringUnwind, Module, Unwinder, UnwinderNative};

/// Finds the modules of a process.
pub(super) fn unwinder(pid: u32) -> Result<UnwinderNative<Vec<u8>, MayAllocateDuringUnwind>, Box<dyn Error>> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))
        .map_err(|error| format!("the modules of process {pid} cannot be read: {error}"))?;
    let mut unwinder = UnwinderNative::new();
    for (path, mapped) in mapped_files(&maps) {
        // By the process's own root, because it may run in a container. A file that cannot be read has no unwind
        // tables.
        let file = std::fs::read(format!("/proc/{pid}/root{path}")).or_else(|_| std::fs::read(&path));
        let Ok(file) = file else { continue };
        let Some(sections) = Sections::of(&file) else { continue };
        let info = ExplicitModuleSectionInfo {
            base_svma: sections.base,
            text_svma: sections.range(".text"),
            text: sections.bytes(".text"),
            got_svma: sections.range(".got"),
            eh_frame_svma: sections.range(".eh_frame"),
            eh_frame: sections.bytes(".eh_frame"),
            eh_frame_hdr_svma: sections.range(".eh_frame_hdr"),
            eh_frame_hdr: sections.bytes(".eh_frame_hdr"),
            ..Default::default()
        };
        unwinder.add_module(Module::new(path, mapped.clone(), mapped.start, info));
    }
    Ok(unwinder)
}

/// The files that a process has mapped with code, and their addresses.
fn mapped_files(maps: &str) -> BTreeMap<String, Range<u64>> {
    let (mut files, mut has_code) = (BTreeMap::<String, Range<u64>>::new(), Vec::new());
    for line in maps.lines() {
        // 55d0c8a00000-55d0c8a21000 r-xp 00002000 fe:01 1234   /usr/bin/program
        let mut fields = line.split_ascii_whitespace();
        let (Some(range), Some(rights)) = (fields.next(), fields.next()) else { continue };
        let Some(path) = line.find('/').map(|at| line[at..].trim_end_matches(" (deleted)").to_owned()) else {
            continue;
        };
        let Some((start, end)) = range.split_once('-') else { continue };
        let (Ok(start), Ok(end)) = (u64::from_str_radix(start, 16), u64::from_str_radix(end, 16)) else {
            continue;
        };
        if rights.contains('x') {
            has_code.push(path.clone());
        }
        let whole = files.entry(path).or_insert(start..end);
        *whole = whole.start.min(start)..whole.end.max(end);
    }
    files.retain(|path, _| has_code.contains(path));
    files
}

/// The sections of an ELF file of 64 bits in this machine's byte order.
struct Sections<'a> {
    file: &'a [u8],
    /// The address of its first segment.
    base: u64,
    /// By name: the address, the place in the file, and the length.
    sections: BTreeMap<&'a str, (u64, usize, usize)>,
}

impl<'a> Sections<'a> {
    /// `None` if the file is something else.
    fn of(file: &'a [u8]) -> Option<Self> {
        // Magic number, 64 bits, little end first.
        if file.get(..6)? != [0x7f, b'E', b'L', b'F', 2, 1] {
            return None;
        }
        let word = |at: usize| Some(u64::from_le_bytes(file.get(at..at.checked_add(8)?)?.try_into().ok()?));
        let half = |at: usize| Some(u32::from_le_bytes(file.get(at..at.checked_add(4)?)?.try_into().ok()?));
        let quarter =
            |at: usize| Some(u16::from_le_bytes(file.get(at..at.checked_add(2)?)?.try_into().ok()?));
        let (segments, sections) = (word(32)? as usize, word(40)? as usize);
        let (segment_count, section_count, names) = (quarter(56)?, quarter(60)?, usize::from(quarter(62)?));
        let segment = |number: u16| {
            let at = segments.checked_add(usize::from(number) * 56)?;
            Some((half(at)?, word(at.checked_add(16)?)?))
        };
        const LOAD: u32 = 1;
        let loaded = (0..segment_count).filter_map(segment).filter(|(kind, _)| *kind == LOAD);
        let base = loaded.map(|(_, address)| address).min()? & !0xfff;
        let header = |number: usize| {
            let at = sections.checked_add(number.checked_mul(64)?)?;
            let place = (word(at.checked_add(24)?)? as usize, word(at.checked_add(32)?)? as usize);
            Some((half(at)? as usize, word(at.checked_add(16)?)?, place.0, place.1))
        };
        let (_, _, names_at, _) = header(names)?;
        let named = (0..usize::from(section_count)).filter_map(|number| {
            let (name, address, place, length) = header(number)?;
            let name = file.get(names_at.checked_add(name)?..)?.split(|byte| *byte == 0).next()?;
            Some((std::str::from_utf8(name).ok()?, (address, place, length)))
        });
        Some(Self { file, base, sections: named.collect() })
    }

    fn range(&self, name: &str) -> Option<Range<u64>> {
        let (address, _, length) = self.sections.get(name)?;
        Some(*address..address.checked_add(*length as u64)?)
    }

    fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        let (_, place, length) = self.sections.get(name)?;
        Some(self.file.get(*place..place.checked_add(*length)?)?.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program_has_what_unwinding_needs() {
        let file = std::fs::read("/proc/self/exe").unwrap();
        let sections = Sections::of(&file).unwrap();
        for name in [".text", ".eh_frame", ".eh_frame_hdr"] {
            let range = sections.range(name).unwrap();
            assert_eq!(sections.bytes(name).unwrap().len() as u64, range.end - range.start, "{name}");
        }
    }

    #[test]
    fn nonsense_has_no_sections() {
        let file = std::fs::read("/proc/self/exe").unwrap();
        for length in [0, 5, 40, 63, 64, 1000] {
            assert!(Sections::of(&file[..length]).is_none_or(|sections| sections.bytes(".text").is_none()));
        }
        let mut wild = file[..4096].to_vec();
        for at in 6..64 {
            wild[at] = 0xff;
            assert!(Sections::of(&wild).is_none_or(|sections| sections.bytes(".text").is_none()));
        }
    }

    #[test]
    fn mappings_of_a_file_are_one_module() {
        let maps = "\
7f00000000-7f00001000 r--p 00000000 fe:01 12 /lib/a b.so (deleted)
7f00001000-7f00003000 r-xp 00001000 fe:01 12 /lib/a b.so (deleted)
7f00003000-7f00004000 rw-p 00000000 00:00 0
7f00004000-7f00005000 r--p 00000000 fe:01 13 /data/font
7f00005000-7f00006000 r-xp 00000000 00:00 0 [vdso]
";
        let files = mapped_files(maps);
        assert_eq!(
            files.into_iter().collect::<Vec<_>>(),
            [("/lib/a b.so".to_owned(), 0x7f00000000..0x7f00003000)]
        );
    }
}
