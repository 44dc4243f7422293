//! The guest's `/etc/passwd` and `/etc/group`, read without the C library: a static program has no name service.

use crate::protocol::User;

/// Lines of an account file longer than the whole file are not a worry; more groups than this are not looked for.
const MAX_GROUPS: usize = 1024;

/// Who a process runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Supplementary groups, without `gid`.
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

impl Account {
    /// The account of `user` by the text of the two files. A name must be known; a number need not be.
    pub(crate) fn find(user: &User, passwd: &str, group: &str) -> Option<Self> {
        let mut account = match user {
            User::Name(name) => entries(passwd).find(|entry| entry.name == *name)?,
            User::Ids { uid, gid } => Self {
                gid: *gid,
                ..Self::of_uid(*uid, passwd)
            },
        };
        account.groups = groups_of(&account, group);
        Some(account)
    }

    /// The account with this number, or one without a name and with `/` as its home.
    pub(crate) fn of_uid(uid: u32, passwd: &str) -> Self {
        let nameless = || Self {
            name: String::new(),
            uid,
            gid: 0,
            groups: Vec::new(),
            home: "/".into(),
        };
        entries(passwd)
            .find(|entry| entry.uid == uid)
            .unwrap_or_else(nameless)
    }
}

fn entries(passwd: &str) -> impl Iterator<Item = Account> + '_ {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let home = fields
            .nth(1)
            .filter(|home| !home.is_empty())
            .unwrap_or("/")
            .to_owned();
        Some(Account {
            name,
            uid,
            gid,
            groups: Vec::new(),
            home,
        })
    })
}

fn groups_of(account: &Account, group: &str) -> Vec<u32> {
    let member = |line: &str| {
        let mut fields = line.split(':').skip(2);
        let gid = fields.next()?.parse().ok()?;
        let is_member = fields
            .next()?
            .split(',')
            .any(|name| !name.is_empty() && name == account.name);
        (is_member && gid != account.gid).then_some(gid)
    };
    group.lines().filter_map(member).take(MAX_GROUPS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\nbroken\n:\nnobody:x:65534:65534::/nonexistent:/bin/false\n\
                          agent:x:1000:1000:An Agent,,,:/home/agent:/bin/bash\nhomeless:x:7:7:::\nhuge:x:99999999999:1::/:";
    const GROUP: &str = "root:x:0:\nsudo:x:27:agent\ndocker:x:999:other,agent\nagent:x:1000:agent\nbad:x:nan:agent\nempty:x:5:,";

    fn name(name: &str) -> User {
        User::Name(name.into())
    }

    #[test]
    fn a_named_user_has_its_ids_home_and_groups() {
        let agent = Account::find(&name("agent"), PASSWD, GROUP).unwrap();
        assert_eq!(
            (agent.uid, agent.gid, agent.home.as_str()),
            (1000, 1000, "/home/agent")
        );
        assert_eq!(agent.groups, [27, 999], "and its own group is not repeated");
    }

    #[test]
    fn unknown_and_unreadable_names_are_refused() {
        for unknown in ["", "ghost", "agent:x", "broken", "huge", "1000", "root\n"] {
            assert_eq!(
                Account::find(&name(unknown), PASSWD, GROUP),
                None,
                "{unknown:?}"
            );
        }
    }

    #[test]
    fn numbers_need_no_entry() {
        let cases = [
            (1000, 50, "agent", "/home/agent", vec![27, 999, 1000]),
            (4242, 4243, "", "/", vec![]),
            (7, 7, "homeless", "/", vec![]),
        ];
        for (uid, gid, name, home, groups) in cases {
            let account = Account::find(&User::Ids { uid, gid }, PASSWD, GROUP).unwrap();
            assert_eq!(
                account,
                Account {
                    name: name.into(),
                    uid,
                    gid,
                    groups,
                    home: home.into()
                }
            );
        }
    }
}
