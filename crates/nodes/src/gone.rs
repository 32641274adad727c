//! Is a node that is silent gone, or only cut off from us? Its browsers know.

/// Of four browsers that a node had, so many must have come to other nodes before it counts as gone.
const OF_FOUR: u64 = 3;

/// Is a node gone? `left`: agents that others have taken over since it was heard; `staying`: agents whose browsers were at it when
/// it was last heard, and are nowhere else.
///
/// When a node is gone, its browsers come to others within seconds. When it is cut off and lives, they stay. As three of four are
/// needed, no two parts of a network can both find so.
pub fn is_gone(left: u64, staying: u64) -> bool {
    left > 0 && left * (4 - OF_FOUR) >= staying * OF_FOUR
}

/// Does `own` end what is left of a node that is gone? `heard`: the nodes that it hears, each with those that this one hears.
///
/// The first of them by name does, and none as long as they do not all hear each other: in a network that lets messages pass in one
/// direction alone, two could believe themselves first.
pub fn is_first(own: &str, heard: &[(String, Vec<String>)]) -> bool {
    let mut all: Vec<&str> = heard.iter().map(|(node, _)| node.as_str()).collect();
    all.push(own);
    all.sort_unstable();
    let agrees = |(node, hears): &(String, Vec<String>)| {
        let mut theirs: Vec<&str> = hears.iter().map(String::as_str).collect();
        theirs.push(node);
        theirs.sort_unstable();
        theirs == all
    };
    all.first() == Some(&own) && heard.iter().all(agrees)
}
