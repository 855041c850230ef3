//! What Compose calls the networks and volumes of a project on its machine: the project's name comes
//! before theirs, unless they have a `name` or are `external`.

use crate::import::section::Section;
use crate::import::unsupported::UnsupportedKeys;

/// The names of a project.
#[derive(Clone, Debug)]
pub(super) struct Names {
    project: Option<String>,
    networks: Option<Section>,
    volumes: Option<Section>,
    /// Whether some services stay in Compose, and so on its default network.
    pub(super) some_stay: bool,
}

/// What something is called on the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Known(String),
    /// It begins with the name of the project, which the file does not say.
    After(String),
}

impl Names {
    pub(super) fn of(top: &Section, some_stay: bool, unsupported: &mut UnsupportedKeys) -> Self {
        let mut top = top.clone();
        Self {
            project: top.text("name", unsupported),
            networks: top.section("networks", unsupported),
            volumes: top.section("volumes", unsupported),
            some_stay,
        }
    }

    pub(super) fn network(&self, name: &str) -> Name {
        self.name(self.networks.as_ref(), name)
    }

    pub(super) fn volume(&self, name: &str) -> Name {
        self.name(self.volumes.as_ref(), name)
    }

    fn name(&self, declared: Option<&Section>, name: &str) -> Name {
        let unheard = &mut UnsupportedKeys::default();
        let declared = declared.and_then(|all| all.clone().section(name, unheard));
        if let Some(mut declared) = declared {
            if let Some(own) = declared.text("name", unheard) {
                return Name::Known(own);
            }
            if declared.word("external") == Some(true) {
                return Name::Known(name.to_owned());
            }
        }
        match &self.project {
            Some(project) => Name::Known(format!("{project}_{name}")),
            None => Name::After(name.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_name_of_its_own_counts_and_else_the_project_comes_first() {
        let names = |file| {
            Names::of(
                &Section::whole(&file),
                false,
                &mut UnsupportedKeys::default(),
            )
        };
        let named = names(json!({ "name": "shop", "volumes": { "data": null },
            "networks": { "a": { "name": "b" }, "c": { "external": true } } }));
        assert_eq!(named.network("a"), Name::Known("b".to_owned()));
        assert_eq!(named.network("c"), Name::Known("c".to_owned()));
        assert_eq!(
            named.network("default"),
            Name::Known("shop_default".to_owned())
        );
        assert_eq!(named.volume("data"), Name::Known("shop_data".to_owned()));
        assert_eq!(
            names(json!({})).volume("data"),
            Name::After("data".to_owned())
        );
    }
}
