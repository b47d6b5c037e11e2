//! What mends a wall that does not stand: one exact text for each, as `topside doctor` prints it.

/// The fix for a wall; `None` when there is none but another kernel or provider.
pub(crate) fn of(wall: &str) -> Option<String> {
    let text = match wall {
        "user_namespace" => USER_NAMESPACE,
        "mount_namespace" | "pid_namespace" | "network_namespace" | "ipc_namespace" | "uts_namespace"
        | "cgroup_namespace" => NAMESPACE,
        "private_root" => PRIVATE_ROOT,
        "memory_limit" | "process_limit" | "cpu_limit" => DELEGATION,
        "io_limit" => IO,
        "landlock" => LANDLOCK,
        "seccomp" => SECCOMP,
        "workspace_limit" => WORKSPACE,
        _ => return None,
    };
    Some(text.to_owned())
}

const USER_NAMESPACE: &str = "sysctl -w user.max_user_namespaces=15000 kernel.unprivileged_userns_clone=1 \
    kernel.apparmor_restrict_unprivileged_userns=0 (those of the three that exist); in Docker: \
    docker run --user 1000 --security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined; \
    in a chroot: enter it with systemd-nspawn or pivot_root instead, the kernel makes no user namespace in a chroot";
const NAMESPACE: &str = "in Docker: docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined \
    --security-opt systempaths=unconfined; else sysctl -w user.max_mnt_namespaces=15000 user.max_pid_namespaces=15000 \
    user.max_net_namespaces=15000 user.max_ipc_namespaces=15000 user.max_uts_namespaces=15000 user.max_cgroup_namespaces=15000";
const PRIVATE_ROOT: &str = "in Docker: docker run --security-opt systempaths=unconfined --security-opt apparmor=unconfined \
    (a masked /proc keeps the kernel from mounting a fresh one)";
const DELEGATION: &str = "as an ordinary user: systemd-run --user --scope -p Delegate=yes topside serve, or in a unit: \
    systemctl edit topside, [Service] Delegate=yes; in Docker: docker run --cgroupns=private -v /sys/fs/cgroup:/sys/fs/cgroup:rw \
    (cgroup v1: mkdir a group below memory, pids and cpu, chown -R it to the user, and start topside in it)";
const IO: &str = "as root: a kernel with CONFIG_BLK_DEV_THROTTLING, its cgroup controller `io` (v2) or `blkio` (v1) mounted where this \
    process stands; or no io_bytes_per_second_max and io_operations_per_second_max in topside.yaml";
const LANDLOCK: &str = "boot with `landlock` in the lsm= parameter (kernel 5.19 or later); in Docker: \
    docker run --security-opt seccomp=unconfined";
const SECCOMP: &str = "a kernel with CONFIG_SECCOMP_FILTER";
const WORKSPACE: &str = "as root: a loop device (modprobe loop; in Docker: docker run --device-cgroup-rule='b 7:* rwm' \
    --device /dev/loop-control -v /dev:/dev), or start as an ordinary user, whose workspaces live in bounded memory";
