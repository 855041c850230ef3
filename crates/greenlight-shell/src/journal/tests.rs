//! What a journal keeps: over restarts, on a disk that fails, and when the power is lost.

use super::disk::{Disk, Told, after_power_loss, after_sync};
use super::*;

#[test]
fn what_was_appended_is_there_after_a_restart() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("journal");
    let mut journal = Journal::open(&path).expect("a new journal");
    assert_eq!(journal.append(&"one").expect("a good disk"), 1);
    assert_eq!(journal.append(&"two").expect("a good disk"), 2);
    drop(journal);
    let mut journal = Journal::open(&path).expect("the same journal");
    assert_eq!(
        journal.load::<String>().expect("two records"),
        ["one", "two"]
    );
    assert_eq!(journal.append(&"three").expect("a good disk"), 3);
}

#[test]
fn a_record_takes_the_place_of_the_first_ones_and_the_others_keep_theirs() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("journal");
    let mut journal = Journal::open(&path).expect("a new journal");
    for record in ["one", "two", "three"] {
        journal.append(&record).expect("a good disk");
    }
    journal.replace_first(2, &"both").expect("a good disk");
    assert_eq!(journal.count(), 2);
    drop(journal);
    let mut journal = Journal::open(&path).expect("the same journal");
    assert_eq!(
        journal.load::<String>().expect("two records"),
        ["both", "three"]
    );
    assert_eq!(journal.count(), 2);
    assert_eq!(journal.append(&"four").expect("a good disk"), 4);
}

#[test]
fn a_journal_in_use_is_refused_by_name() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("journal");
    let _first = Journal::open(&path).expect("a new journal");
    let error = Journal::open(&path)
        .err()
        .expect("it is in use")
        .to_string();
    assert!(error.contains("is in use"), "{error}");
    assert!(error.contains("journal"), "{error}");
}

#[test]
fn a_journal_whose_making_was_interrupted_is_made_anew_and_never_in_its_place_before() {
    let dir = tempfile::tempdir().expect("a folder");
    let (path, next) = (dir.path().join("journal"), dir.path().join("journal.next"));
    std::fs::create_dir(&next).expect("a folder");
    assert!(Journal::open(&path).is_err(), "it is made elsewhere");
    assert!(!path.exists());

    std::fs::remove_dir(&next).expect("it is there");
    std::fs::write(&next, [0; 8192]).expect("a folder");
    let mut journal = Journal::open(&path).expect("a new journal");
    assert_eq!(journal.append(&"one").expect("a good disk"), 1);
    assert!(!next.exists());
}

#[test]
fn a_journal_of_a_newer_format_is_refused_and_left_alone() -> Result<(), redb::Error> {
    let other: TableDefinition<'_, &str, &str> = TableDefinition::new("records");
    let disk = Disk::default();
    let newer = Database::builder().create_with_backend(disk.clone())?;
    let transaction = newer.begin_write()?;
    transaction
        .open_table(ABOUT)?
        .insert("format", FORMAT + 1)?;
    transaction.open_table(other)?.insert("one", "in words")?;
    transaction.commit()?;
    drop(newer);

    let error = open(&disk).err().expect("it is newer");

    let is_newer = matches!(error, JournalError::Newer { found, .. } if found == FORMAT + 1);
    assert!(is_newer, "{error}");
    let newer = Database::builder().create_with_backend(disk)?;
    let transaction = newer.begin_read()?;
    let format = transaction.open_table(ABOUT)?.get("format")?;
    assert_eq!(format.map(|format| format.value()), Some(FORMAT + 1));
    let record = transaction.open_table(other)?.get("one")?;
    assert_eq!(record.expect("it is there").value(), "in words");
    Ok(())
}

#[test]
fn a_journal_of_an_older_format_is_refused_with_what_to_do_and_left_alone()
-> Result<(), redb::Error> {
    let disk = Disk::default();
    let older = Database::builder().create_with_backend(disk.clone())?;
    let transaction = older.begin_write()?;
    transaction
        .open_table(ABOUT)?
        .insert("format", FORMAT - 1)?;
    let record = br#"{"settled":1}"#.as_slice();
    transaction.open_table(RECORDS)?.insert(1, record)?;
    transaction.commit()?;
    drop(older);

    let error = open(&disk).err().expect("it is older").to_string();

    let format = format!("has format {}", FORMAT - 1);
    assert!(error.contains(&format), "{error}");
    assert!(error.contains("away and deploy again"), "{error}");
    let older = Database::builder().create_with_backend(disk)?;
    let transaction = older.begin_read()?;
    let format = transaction.open_table(ABOUT)?.get("format")?;
    assert_eq!(format.map(|format| format.value()), Some(FORMAT - 1));
    let known = transaction.open_table(RECORDS)?.get(1)?;
    assert_eq!(known.expect("it is there").value(), record);
    Ok(())
}

#[test]
fn what_is_on_the_disk_is_synced_when_appending_returns() {
    let disk = Disk::default();
    let mut journal = open(&disk).expect("a good disk");
    for record in ["one", "two", "three"] {
        let before = disk.told().len();
        journal.append(&record).expect("a good disk");
        assert_written_then_synced(&disk.told()[before..], record);
    }
    let before = disk.told().len();
    journal.replace_first(2, &"both").expect("a good disk");
    assert_written_then_synced(&disk.told()[before..], "both");
}

#[test]
fn after_a_sync_that_failed_nothing_more_is_accepted_until_a_restart() {
    let disk = Disk::default();
    let mut journal = open(&disk).expect("a good disk");
    journal.append(&"one").expect("a good disk");

    disk.fail_to_sync(true);
    let error = journal.append(&"two").expect_err("it is not synced");
    assert!(matches!(error, JournalError::Store { .. }), "{error}");
    assert!(error.to_string().contains("the disk is broken"), "{error}");

    // That it works again says nothing of what it has.
    disk.fail_to_sync(false);
    let before = disk.told().len();
    let error = journal.append(&"three").expect_err("it may lack one");
    assert!(matches!(error, JournalError::Poisoned { .. }), "{error}");
    let error = journal
        .replace_first(1, &"one")
        .expect_err("it may lack one");
    assert!(matches!(error, JournalError::Poisoned { .. }), "{error}");
    assert_eq!(disk.told().len(), before);

    drop(journal);
    let journal = open(&Disk::with(disk.image())).expect("a good disk");
    let records = journal.load::<String>().expect("a good disk");
    assert!(
        records == ["one"] || records == ["one", "two"],
        "{records:?}"
    );
}

#[test]
fn after_a_power_loss_the_journal_has_all_that_was_appended_and_at_most_what_was_under_way() {
    let disk = Disk::default();
    let mut journal = open(&disk).expect("a good disk");
    let mut records: Vec<String> = Vec::new();
    let mut synced = disk.image();
    let mut done = disk.told().len();
    // Until when the disk was told, and what the journal had before and has since.
    let mut steps = Vec::new();
    for number in 0..8 {
        let before = records.clone();
        if number == 5 {
            journal
                .replace_first(4, &"the first four")
                .expect("a good disk");
            records.splice(..4, ["the first four".to_owned()]);
        } else {
            // Some fill several pages.
            let record = format!("{number} ").repeat(1 + number * 700);
            journal.append(&record).expect("a good disk");
            records.push(record);
        }
        steps.push((disk.told().len(), before, records.clone()));
    }
    drop(journal);
    let told = disk.told();
    steps.push((told.len(), records.clone(), records));

    let mut unsynced = Vec::new();
    for (until, before, after) in &steps {
        while done < *until {
            match &told[done] {
                Told::Sync => after_sync(&mut synced, &mut unsynced),
                written @ (Told::SetLen(_) | Told::Write(..)) => unsynced.push(written.clone()),
            }
            done += 1;
            for image in after_power_loss(&synced, &unsynced) {
                let found = records_in(image);
                let is_right = found == *after || (done < *until && found == *before);
                assert!(is_right, "after {done} of {}: {found:?}", told.len());
            }
        }
    }
}

fn open(disk: &Disk) -> Result<Journal, JournalError> {
    let database = Database::builder().create_with_backend(disk.clone());
    Journal::in_database(database, Path::new("journal"))
}

fn records_in(image: Vec<u8>) -> Vec<String> {
    let journal = open(&Disk::with(image)).expect("it opens");
    let records = journal.load().expect("it can be read");
    assert_eq!(journal.count(), records.len() as u64);
    records
}

fn assert_written_then_synced(told: &[Told], record: &str) {
    let is_record = |told: &Told| match told {
        Told::Write(_, bytes) => bytes.windows(record.len()).any(|w| w == record.as_bytes()),
        Told::SetLen(_) | Told::Sync => false,
    };
    assert!(told.iter().any(is_record), "`{record}` is not written");
    assert!(matches!(told.last(), Some(Told::Sync)), "it is not synced");
}
