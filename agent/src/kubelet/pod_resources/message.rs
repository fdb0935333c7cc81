//! The messages of `v1.PodResourcesLister`, as far as they are read (kubernetes,
//! `staging/src/k8s.io/kubelet/pkg/apis/podresources/v1/api.proto`). What else is in them is skipped.

/// `ListPodResourcesRequest`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct ListRequest {}

/// `ListPodResourcesResponse`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ListResponse {
    #[prost(message, repeated, tag = "1")]
    pub pod_resources: Vec<PodResources>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PodResources {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub namespace: String,
    #[prost(message, repeated, tag = "3")]
    pub containers: Vec<ContainerResources>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ContainerResources {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, repeated, tag = "2")]
    pub devices: Vec<ContainerDevices>,
    /// Since Kubernetes 1.27, behind `KubeletPodResourcesDynamicResources`, which is on since 1.34.
    #[prost(message, repeated, tag = "5")]
    pub dynamic_resources: Vec<DynamicResource>,
}

/// What a device plugin gave.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ContainerDevices {
    #[prost(string, tag = "1")]
    pub resource_name: String,
    #[prost(string, repeated, tag = "2")]
    pub device_ids: Vec<String>,
}

/// What a resource claim gave.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct DynamicResource {
    #[prost(message, repeated, tag = "4")]
    pub claim_resources: Vec<ClaimResource>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ClaimResource {
    #[prost(string, tag = "2")]
    pub driver_name: String,
    #[prost(string, tag = "4")]
    pub device_name: String,
}
