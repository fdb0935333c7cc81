//! How busy the GPU is: by the driver's own sampling, and on Hopper and newer by the counters of GPM.
//!
//! GPM needs two samples; the one of the round before is kept. `nvml.h` gives its rates in percent and in MiB/s.

use nvml_wrapper::{
    Nvml,
    enums::gpm::GpmMetricId,
    error::NvmlError,
    gpm::{GpmSample, gpm_metrics_get},
};

use super::{ALL, Answer, HOPPER, Measure, Question, Round, Tells, asker::Asker, getter, labelled, measure, ratio};
use crate::{
    gpu::raw,
    series::{
        Series,
        gpu::{
            activity::{
                DRAM_ACTIVE_RATIO, GRAPHICS_ACTIVE_RATIO, MEMORY_UTILIZATION_RATIO, NVLINK_THROUGHPUT_BYTES_PER_SECOND,
                PCIE_THROUGHPUT_BYTES_PER_SECOND, PIPE_ACTIVE_RATIO, SM_ACTIVE_RATIO, SM_OCCUPANCY_RATIO,
                UTILIZATION_RATIO, VIDEO_UTILIZATION_RATIO,
            },
            identity::CONFIDENTIAL_COMPUTE,
            mig::{
                MIG_DRAM_ACTIVE_RATIO, MIG_GRAPHICS_ACTIVE_RATIO, MIG_PIPE_ACTIVE_RATIO, MIG_SM_ACTIVE_RATIO,
                MIG_SM_OCCUPANCY_RATIO,
            },
        },
    },
};

pub(super) static QUESTIONS: &[Question] = &[
    getter(
        "nvmlDeviceGetUtilizationRates",
        Round::Light,
        ALL,
        &[(&UTILIZATION_RATIO, ""), (&MEMORY_UTILIZATION_RATIO, "")],
        |gpu| {
            let rates = gpu.device.utilization_rates()?;
            Ok(vec![
                measure(&UTILIZATION_RATIO, ratio(rates.gpu)?),
                measure(&MEMORY_UTILIZATION_RATIO, ratio(rates.memory)?),
            ])
        },
    ),
    getter(
        "nvmlDeviceGetEncoderUtilization",
        Round::Full,
        "GPUs with an encoder",
        &[(&VIDEO_UTILIZATION_RATIO, "encoder")],
        |gpu| {
            Ok(vec![labelled(
                &VIDEO_UTILIZATION_RATIO,
                "encoder",
                ratio(gpu.device.encoder_utilization()?.utilization)?,
            )])
        },
    ),
    getter(
        "nvmlDeviceGetDecoderUtilization",
        Round::Full,
        "GPUs with a decoder",
        &[(&VIDEO_UTILIZATION_RATIO, "decoder")],
        |gpu| {
            Ok(vec![labelled(
                &VIDEO_UTILIZATION_RATIO,
                "decoder",
                ratio(gpu.device.decoder_utilization()?.utilization)?,
            )])
        },
    ),
    getter("nvmlSystemGetConfComputeState", Round::Full, HOPPER, &[(&CONFIDENTIAL_COMPUTE, "")], |gpu| {
        Ok(vec![measure(&CONFIDENTIAL_COMPUTE, if raw::is_confidential(gpu.nvml)? { 1.0 } else { 0.0 })])
    }),
    getter("nvmlGpmMetricsGet", Round::Light, HOPPER, GPM_TELLS, gpm),
];

/// One metric of GPM.
struct Metric {
    id: GpmMetricId,
    series: &'static Series,
    label: &'static str,
    /// What makes the base unit of it.
    factor: f64,
}

const PERCENT: f64 = 0.01;
const MEBIBYTES: f64 = 1_048_576.0;

static METRICS: &[Metric] = &[
    Metric { id: GpmMetricId::GraphicsUtil, series: &GRAPHICS_ACTIVE_RATIO, label: "", factor: PERCENT },
    Metric { id: GpmMetricId::SmUtil, series: &SM_ACTIVE_RATIO, label: "", factor: PERCENT },
    Metric { id: GpmMetricId::SmOccupancy, series: &SM_OCCUPANCY_RATIO, label: "", factor: PERCENT },
    Metric { id: GpmMetricId::IntegerUtil, series: &PIPE_ACTIVE_RATIO, label: "integer", factor: PERCENT },
    Metric { id: GpmMetricId::AnyTensorUtil, series: &PIPE_ACTIVE_RATIO, label: "tensor", factor: PERCENT },
    Metric { id: GpmMetricId::DfmaTensorUtil, series: &PIPE_ACTIVE_RATIO, label: "tensor_fp64", factor: PERCENT },
    Metric { id: GpmMetricId::HmmaTensorUtil, series: &PIPE_ACTIVE_RATIO, label: "tensor_fp16", factor: PERCENT },
    Metric { id: GpmMetricId::ImmaTensorUtil, series: &PIPE_ACTIVE_RATIO, label: "tensor_int", factor: PERCENT },
    Metric { id: GpmMetricId::Fp64Util, series: &PIPE_ACTIVE_RATIO, label: "fp64", factor: PERCENT },
    Metric { id: GpmMetricId::Fp32Util, series: &PIPE_ACTIVE_RATIO, label: "fp32", factor: PERCENT },
    Metric { id: GpmMetricId::Fp16Util, series: &PIPE_ACTIVE_RATIO, label: "fp16", factor: PERCENT },
    Metric { id: GpmMetricId::DramBwUtil, series: &DRAM_ACTIVE_RATIO, label: "", factor: PERCENT },
    Metric {
        id: GpmMetricId::PcieTxPerSec,
        series: &PCIE_THROUGHPUT_BYTES_PER_SECOND,
        label: "transmit",
        factor: MEBIBYTES,
    },
    Metric {
        id: GpmMetricId::PcieRxPerSec,
        series: &PCIE_THROUGHPUT_BYTES_PER_SECOND,
        label: "receive",
        factor: MEBIBYTES,
    },
    Metric {
        id: GpmMetricId::NvlinkTotalTxPerSec,
        series: &NVLINK_THROUGHPUT_BYTES_PER_SECOND,
        label: "transmit",
        factor: MEBIBYTES,
    },
    Metric {
        id: GpmMetricId::NvlinkTotalRxPerSec,
        series: &NVLINK_THROUGHPUT_BYTES_PER_SECOND,
        label: "receive",
        factor: MEBIBYTES,
    },
];

/// The series of [`METRICS`]: a test holds them together.
static GPM_TELLS: Tells = &[
    (&GRAPHICS_ACTIVE_RATIO, ""),
    (&SM_ACTIVE_RATIO, ""),
    (&SM_OCCUPANCY_RATIO, ""),
    (&PIPE_ACTIVE_RATIO, ""),
    (&DRAM_ACTIVE_RATIO, ""),
    (&PCIE_THROUGHPUT_BYTES_PER_SECOND, ""),
    (&NVLINK_THROUGHPUT_BYTES_PER_SECOND, ""),
];

/// What passed since the round before; nothing in the first.
fn gpm(gpu: &mut Asker) -> Answer {
    if gpu.gpm.is_none() && !gpu.device.gpm_support()? {
        return Err(NvmlError::NotSupported);
    }
    let now: GpmSample<'static> = gpu.device.gpm_sample()?;
    let Some(before) = gpu.gpm.replace(now) else { return Ok(Vec::new()) };
    let Some(now) = &gpu.gpm else { return Ok(Vec::new()) };
    between(gpu.nvml, &before, now)
}

/// What passed between two samples of a GPU, or of an instance.
pub(super) fn between(nvml: &'static Nvml, before: &GpmSample<'static>, now: &GpmSample<'static>) -> Answer {
    let ids: Vec<GpmMetricId> = METRICS.iter().map(|metric| metric.id).collect();
    let answers = gpm_metrics_get(nvml, before, now, &ids)?;
    let told = METRICS.iter().zip(answers).filter_map(|(metric, answer)| metric.measure(answer.ok()?.value));
    Ok(told.collect())
}

/// The series of an instance that is as this one of the whole GPU; links are of the whole alone.
pub(super) fn of_instance(series: &Series) -> Option<&'static Series> {
    [
        (&GRAPHICS_ACTIVE_RATIO, &MIG_GRAPHICS_ACTIVE_RATIO),
        (&SM_ACTIVE_RATIO, &MIG_SM_ACTIVE_RATIO),
        (&SM_OCCUPANCY_RATIO, &MIG_SM_OCCUPANCY_RATIO),
        (&PIPE_ACTIVE_RATIO, &MIG_PIPE_ACTIVE_RATIO),
        (&DRAM_ACTIVE_RATIO, &MIG_DRAM_ACTIVE_RATIO),
    ]
    .into_iter()
    .find_map(|(whole, part)| (*whole == *series).then_some(part))
}

impl Metric {
    /// `None` for what is no share and no rate: a driver that has nothing to say says NaN.
    fn measure(&self, value: f64) -> Option<Measure> {
        // Rounding of the driver's takes a share a little above the whole.
        const ABOVE: f64 = 100.5;
        let is_share = self.factor.to_bits() == PERCENT.to_bits();
        let makes_sense = value.is_finite() && value >= 0.0 && (!is_share || value <= ABOVE);
        let number = value * self.factor;
        let number = if is_share { number.min(1.0) } else { number };
        makes_sense.then(|| match self.label {
            "" => measure(self.series, number),
            label => labelled(self.series, label, number),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_gpm_tells_is_what_its_metrics_tell() {
        for metric in METRICS {
            assert!(GPM_TELLS.iter().any(|(series, _)| *series == metric.series), "{}", metric.series.name);
        }
        assert!(GPM_TELLS.iter().all(|(series, _)| METRICS.iter().any(|metric| metric.series == *series)));
    }

    #[test]
    fn a_share_is_a_ratio_a_rate_is_bytes_and_nonsense_is_nothing() {
        let told = |index: usize, value: f64| METRICS[index].measure(value).map(|measure| measure.number);
        let rate = METRICS.len() - 1;
        assert_eq!((told(0, 50.0), told(0, 100.2), told(rate, 2.0)), (Some(0.5), Some(1.0), Some(2_097_152.0)));
        assert_eq!([f64::NAN, f64::INFINITY, -1.0, 101.0].map(|value| told(0, value)), [None; 4]);
    }
}
