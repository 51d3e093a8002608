"""Asks the real nvidia-ml-py, in a process of its own; questions and answers are JSON on stdin and stdout.

A question is {"at": seconds since boot, "call": name, "args": [...]}: the name of an nvidia-ml-py function without
"nvmlDevice", or one of OPERATIONS; the argument "gpu:N" stands for the handle of GPU N. An error answers
{"error": code}. Every question is asked at its own, pretended time.
"""

import json
import os
import sys
from ctypes import Structure

import pynvml

BOOT_NS = 1_800_000_000_000_000_000


def main() -> None:
    pynvml.nvmlInit()
    json.dump([answer(**question) for question in json.load(sys.stdin)], sys.stdout)


def answer(at: float, call: str, args: list) -> object:
    set_time(at)
    try:
        values = [handle(arg) for arg in args]
        operation = OPERATIONS.get(call)
        return plain(operation(*values) if operation else getattr(pynvml, f"nvmlDevice{call}")(*values))
    except pynvml.NVMLError as error:
        return {"error": error.value}


def set_time(seconds: float) -> None:
    os.environ["PIOLET_GPUSIM_NOW_NS"] = str(BOOT_NS + round(seconds * 1e9))


def handle(arg: object) -> object:
    if isinstance(arg, str) and arg.startswith("gpu:"):
        return pynvml.nvmlDeviceGetHandleByIndex(int(arg[4:]))
    return arg


def plain(value: object) -> object:
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, Structure):
        return {name: plain(getattr(value, name)) for name, *_ in value._fields_}
    if isinstance(value, pynvml.nvmlFriendlyObject):
        return vars(value)
    if isinstance(value, list | tuple):
        return [plain(element) for element in value]
    return value


def fields(gpu: object, *ids: object) -> list:
    wanted = [tuple(element) if isinstance(element, list) else element for element in ids]
    values = pynvml.nvmlDeviceGetFieldValues(gpu, wanted)
    return [{"error": v.nvmlReturn} if v.nvmlReturn else VALUE[v.valueType](v.value) for v in values]


VALUE = {
    pynvml.NVML_VALUE_TYPE_UNSIGNED_INT: lambda value: value.uiVal,
    pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG: lambda value: value.ullVal,
}


def gpm(gpu: object, until: float, ids: list) -> dict:
    """Return GPM metrics between the question's time and `until`; a blank one is its error code, as text."""
    samples = [pynvml.nvmlGpmSampleAlloc() for _ in range(2)]
    pynvml.nvmlGpmSampleGet(gpu, samples[0])
    set_time(until)
    pynvml.nvmlGpmSampleGet(gpu, samples[1])
    result = gpm_metrics(*samples, ids)
    for sample in samples:
        pynvml.nvmlGpmSampleFree(sample)
    return result


def gpm_first(gpu: object, ids: list) -> dict:
    """Ask with one sample taken and one that is not."""
    samples = [pynvml.nvmlGpmSampleAlloc() for _ in range(2)]
    pynvml.nvmlGpmSampleGet(gpu, samples[1])
    return gpm_metrics(*samples, ids)


def gpm_metrics(first: object, second: object, ids: list) -> dict:
    request = pynvml.c_nvmlGpmMetricsGet_t(version=pynvml.NVML_GPM_METRICS_GET_VERSION, numMetrics=len(ids))
    request.sample1, request.sample2 = first, second
    for metric, number in zip(request.metrics, ids, strict=False):
        metric.metricId = number
    pynvml.nvmlGpmMetricsGet(request)
    return {m.metricId: f"error {m.nvmlReturn}" if m.nvmlReturn else m.value for m in request.metrics[: len(ids)]}


def events(types: int, until: float, timeout_ms: int, *gpus: object) -> list:
    """Register now, then wait from `until` on; return (event type, data) up to the time-out."""
    chosen = pynvml.nvmlEventSetCreate()
    for gpu in gpus:
        pynvml.nvmlDeviceRegisterEvents(gpu, types, chosen)
    set_time(until)
    found = []
    try:
        while True:
            event = pynvml.nvmlEventSetWait_v2(chosen, timeout_ms)
            found.append([event.eventType, event.eventData])
    except pynvml.NVMLError_Timeout:
        pynvml.nvmlEventSetFree(chosen)
    return found


def memory_v2(gpu: object) -> object:
    return pynvml.nvmlDeviceGetMemoryInfo(gpu, version=pynvml.nvmlMemory_v2)


OPERATIONS = {
    "events": events,
    "fields": fields,
    "gpm": gpm,
    "gpm_first": gpm_first,
    "gpm_support": lambda gpu: pynvml.nvmlGpmQueryDeviceSupport(gpu).isSupportedDevice,
    "handle_index": pynvml.nvmlDeviceGetIndex,
    "by_uuid": lambda uuid: pynvml.nvmlDeviceGetIndex(pynvml.nvmlDeviceGetHandleByUUID(uuid)),
    "by_serial": lambda serial: pynvml.nvmlDeviceGetIndex(pynvml.nvmlDeviceGetHandleBySerial(serial)),
    "by_bus": lambda bus: pynvml.nvmlDeviceGetIndex(pynvml.nvmlDeviceGetHandleByPciBusId(bus)),
    "count": pynvml.nvmlDeviceGetCount,
    "driver": pynvml.nvmlSystemGetDriverVersion,
    "nvml": pynvml.nvmlSystemGetNVMLVersion,
    "cuda": pynvml.nvmlSystemGetCudaDriverVersion,
    "error_string": pynvml.nvmlErrorString,
    "process_name": pynvml.nvmlSystemGetProcessName,
    "memory_v2": memory_v2,
    "pid": os.getpid,
}

if __name__ == "__main__":
    main()
