//! What the kubelet calls a GPU or an instance of one: the ids of NVIDIA's device plugin under each of its strategies, of
//! Google's, and of NVIDIA's driver of dynamic resources.

/// What an id says, before anybody has looked whether there is such a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceId<'a> {
    /// `GPU-…`, or `MIG-…` of an instance.
    Uuid(&'a str),
    /// The N of `/dev/nvidiaN`, and the GPU instance of it.
    Minor { minor: u32, instance: Option<u32> },
    /// What NVML counts.
    Index(u32),
    /// The GPU and the GPU instance, as instances were called before driver 470.
    Instance { uuid: &'a str, instance: u32 },
    /// An instance that dynamic resources call by where it lies on the GPU, which NVML does not say.
    Placed { minor: u32 },
}

impl<'a> DeviceId<'a> {
    pub fn parse(id: &'a str) -> Option<Self> {
        // A replica of time-slicing or of MPS: `GPU-…::3`.
        let id = match id.split_once("::") {
            Some((id, replica)) if number(replica).is_some() => id,
            Some(_) => return None,
            None => id,
        };
        if let Some(legacy) = id.strip_prefix("MIG-").filter(|legacy| legacy.starts_with("GPU-")) {
            let (uuid, instances) = legacy.split_once('/')?;
            let (instance, compute) = instances.split_once('/')?;
            number(compute)?;
            return Some(Self::Instance { uuid, instance: number(instance)? });
        }
        if id.starts_with("GPU-") || id.starts_with("MIG-") {
            return Some(Self::Uuid(id));
        }
        if let Some(name) = id.strip_prefix("gpu-") {
            return match name.split_once("-mig-") {
                Some((minor, _)) => Some(Self::Placed { minor: number(minor)? }),
                None => Some(Self::Minor { minor: number(name)?, instance: None }),
            };
        }
        match id.strip_prefix("nvidia") {
            Some(name) => of_google(name),
            None => number(id).map(Self::Index),
        }
    }
}

/// `N`, `N/giM`, `N/vgpuK`, `N/giM/vgpuK`.
fn of_google(name: &str) -> Option<DeviceId<'static>> {
    let mut parts = name.split('/');
    let minor = number(parts.next()?)?;
    let mut instance = None;
    for (at, part) in parts.enumerate() {
        match (at, part.strip_prefix("gi"), part.strip_prefix("vgpu")) {
            (0, Some(id), _) => instance = Some(number(id)?),
            (0, _, Some(share)) => {
                number(share)?;
                // Nothing may follow it.
                return (name.matches('/').count() == 1).then_some(DeviceId::Minor { minor, instance });
            }
            (1, _, Some(share)) => drop(number(share)?),
            _ => return None,
        }
    }
    Some(DeviceId::Minor { minor, instance })
}

/// Digits only, and not many.
fn number(text: &str) -> Option<u32> {
    let is_number = (1..=9).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(id: &str, expect: Option<DeviceId<'_>>) {
        assert_eq!(DeviceId::parse(id), expect, "{id:?}");
    }

    #[test]
    fn every_form_that_a_kubelet_tells_is_understood() {
        check("GPU-b2a5", Some(DeviceId::Uuid("GPU-b2a5")));
        check("GPU-b2a5::3", Some(DeviceId::Uuid("GPU-b2a5")));
        check("MIG-7f1c", Some(DeviceId::Uuid("MIG-7f1c")));
        check("MIG-7f1c::0", Some(DeviceId::Uuid("MIG-7f1c")));
        check("MIG-GPU-b2a5/9/0", Some(DeviceId::Instance { uuid: "GPU-b2a5", instance: 9 }));
        check("3", Some(DeviceId::Index(3)));
        check("3::1", Some(DeviceId::Index(3)));
        check("nvidia0", Some(DeviceId::Minor { minor: 0, instance: None }));
        check("nvidia0/vgpu1", Some(DeviceId::Minor { minor: 0, instance: None }));
        check("nvidia1/gi7", Some(DeviceId::Minor { minor: 1, instance: Some(7) }));
        check("nvidia1/gi7/vgpu0", Some(DeviceId::Minor { minor: 1, instance: Some(7) }));
        check("gpu-2", Some(DeviceId::Minor { minor: 2, instance: None }));
        check("gpu-2-mig-19-4-1", Some(DeviceId::Placed { minor: 2 }));
        check("gpu-2-mig-1g10gb-19-4", Some(DeviceId::Placed { minor: 2 }));
    }

    #[test]
    fn anything_else_is_no_gpu() {
        for id in [
            "",
            "::",
            "::1",
            "GPU-b2a5::",
            "GPU-b2a5::x",
            "nvidia",
            "nvidia/gi1",
            "nvidiax",
            "nvidia0/",
            "nvidia0/gi",
            "nvidia0/vgpu1/gi2",
            "nvidia0/vgpu1/vgpu2",
            "nvidia0/gi1/gi2",
            "nvidia0/gi1/vgpu0/x",
            "nvidia-1",
            "nvidia99999999999",
            "gpu-",
            "gpu-x",
            "gpu--mig-1",
            "-1",
            "+1",
            "1 ",
            "MIG-GPU-b2a5",
            "MIG-GPU-b2a5/1",
            "MIG-GPU-b2a5/x/0",
            "tpu0",
            "mlx5_0",
        ] {
            check(id, None);
        }
    }

    proptest! {
        #[test]
        fn no_id_makes_it_panic(id in "\\PC{0,40}|(MIG-|GPU-|nvidia|gpu-|/|::|gi|vgpu|-mig-|[0-9]){0,12}") {
            let _ = DeviceId::parse(&id);
        }
    }
}
