//! What a container may take, when it runs again, and what names it knows, in docker's `HostConfig`.

use serde::Serialize;

use crate::container::Wishes;
use crate::container::restarting::RestartPolicy;
use crate::launcher::{HostAddress, Limit};

/// As docker has it, 0 and empty are for what was not asked for.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Limits {
    memory: u64,
    memory_swap: i64,
    memory_reservation: u64,
    cpu_shares: u64,
    cpu_period: u64,
    cpu_quota: i64,
    nano_cpus: u64,
    cpuset_cpus: String,
    cpuset_mems: String,
    pids_limit: Option<i64>,
    blkio_weight: u16,
    cgroup_parent: String,
    restart_policy: Restart,
    init: bool,
    group_add: Vec<String>,
    dns: Vec<String>,
    dns_search: Vec<String>,
    dns_options: Vec<String>,
    extra_hosts: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Restart {
    name: String,
    maximum_retry_count: u32,
}

impl Limits {
    pub(super) fn of(wishes: &Wishes) -> Self {
        let resources = &wishes.resources;
        let number = |limit: Option<Limit>| match limit {
            None => 0,
            Some(Limit::Of(number)) => i64::try_from(number).unwrap_or(i64::MAX),
            Some(Limit::Unlimited) => -1,
        };
        Self {
            memory: resources.memory.unwrap_or(0),
            // Docker's default, and ours.
            memory_swap: match (resources.memory_swap, resources.memory) {
                (None, Some(memory)) => i64::try_from(memory.saturating_mul(2)).unwrap_or(i64::MAX),
                (swap, _) => number(swap),
            },
            memory_reservation: resources.memory_reservation.unwrap_or(0),
            cpu_shares: resources.cpu_shares.unwrap_or(0),
            cpu_period: resources.cpu_period.unwrap_or(0),
            cpu_quota: number(resources.cpu_quota),
            nano_cpus: resources.nano_cpus.unwrap_or(0),
            cpuset_cpus: resources.cpuset_cpus.clone().unwrap_or_default(),
            cpuset_mems: resources.cpuset_mems.clone().unwrap_or_default(),
            pids_limit: resources.pids_limit.map(|limit| number(Some(limit))),
            blkio_weight: resources.blkio_weight.unwrap_or(0),
            cgroup_parent: resources.parent.clone().unwrap_or_default(),
            restart_policy: restart(wishes.restart),
            init: wishes.init,
            group_add: wishes.groups.clone(),
            dns: wishes.names.servers.iter().map(ToString::to_string).collect(),
            dns_search: wishes.names.search.clone(),
            dns_options: wishes.names.options.clone(),
            extra_hosts: wishes.names.hosts.iter().map(host).collect(),
        }
    }
}

fn restart(policy: RestartPolicy) -> Restart {
    let text = policy.to_string();
    let name = text.split(':').next().unwrap_or_default().to_owned();
    let maximum_retry_count = match policy {
        RestartPolicy::OnFailure(Some(count)) => count,
        _ => 0,
    };
    Restart { name, maximum_retry_count }
}

fn host((name, address): &(String, HostAddress)) -> String {
    match address {
        HostAddress::Ip(address) => format!("{name}:{address}"),
        HostAddress::Gateway => format!("{name}:host-gateway"),
    }
}
