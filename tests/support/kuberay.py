"""What KubeRay's custom resources may hold, stated for the parts that infra/kuberay uses.

Fields, types and required names are those of the `ray.io/v1` definitions of KubeRay 1.6 (its API reference lists them
all); of a pod, those of Kubernetes that the manifests use. Objects are closed: an API server drops a field that it does
not know without a word, so that nobody would miss a mistyped one. `complaints` adds rules of the operator's own code.
"""

from __future__ import annotations

import re
from typing import Any

import jsonschema

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_COUNT: Schema = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
_FLAG: Schema = {"type": "boolean"}
_TEXTS: Schema = {"type": "object", "additionalProperties": _TEXT}
_QUANTITIES: Schema = {
    "type": "object",
    "additionalProperties": {
        "type": ["integer", "string"],
        "pattern": r"^\d+(\.\d+)?([numkMGTPE]|[KMGTPE]i|[eE]\d+)?$",
    },
}
"""Resources and their amounts, such as `16Gi`."""


def _list(of: Schema) -> Schema:
    return {"type": "array", "items": of}


def _record(required: str = "", **fields: Schema) -> Schema:
    return {"type": "object", "additionalProperties": False, "required": required.split(), "properties": fields}


_RESOURCES = _record(requests=_QUANTITIES, limits=_QUANTITIES)
_NAMED = _record("name", name=_TEXT, optional=_FLAG)
_SECRET_KEY = _record("name key", name=_TEXT, key=_TEXT, optional=_FLAG)
_HANDLER = _record(exec=_record("command", command=_list(_TEXT)))
_CONTAINER = _record(
    "name image",  # Kubernetes asks for an image only later, when it makes the pod
    name=_TEXT,
    image=_TEXT,
    command=_list(_TEXT),
    args=_list(_TEXT),
    env=_list(_record("name", name=_TEXT, value=_TEXT, valueFrom=_record(secretKeyRef=_SECRET_KEY))),
    envFrom=_list(_record(secretRef=_NAMED, configMapRef=_NAMED, prefix=_TEXT)),
    lifecycle=_record(postStart=_HANDLER, preStop=_HANDLER),
    resources=_RESOURCES,
    volumeMounts=_list(_record("name mountPath", name=_TEXT, mountPath=_TEXT, readOnly=_FLAG, subPath=_TEXT)),
)
_VOLUME = _record(
    "name",
    name=_TEXT,
    persistentVolumeClaim=_record("claimName", claimName=_TEXT, readOnly=_FLAG),
    emptyDir=_record(medium={"enum": ["", "Memory"]}, sizeLimit=_QUANTITIES["additionalProperties"]),
)
_TOLERATION = _record(
    key=_TEXT,
    operator={"enum": ["Exists", "Equal"]},
    value=_TEXT,
    effect={"enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"]},
)
_POD = _record(
    "spec",
    metadata=_record(labels=_TEXTS, annotations=_TEXTS),
    spec=_record(
        "containers",
        containers=_list(_CONTAINER) | {"minItems": 1},
        volumes=_list(_VOLUME),
        tolerations=_list(_TOLERATION),
        nodeSelector=_TEXTS,
        serviceAccountName=_TEXT,
        securityContext=_record(fsGroup=_COUNT, runAsUser=_COUNT, runAsGroup=_COUNT, runAsNonRoot=_FLAG),
        terminationGracePeriodSeconds=_COUNT,
    ),
)
_GROUP = {"rayStartParams": _TEXTS, "template": _POD, "resources": _TEXTS, "labels": _TEXTS}
_WORKERS = _record(
    "groupName minReplicas maxReplicas template",
    **_GROUP,
    groupName=_TEXT,
    replicas=_COUNT,
    minReplicas=_COUNT,
    maxReplicas=_COUNT,
    numOfHosts=_COUNT,
    idleTimeoutSeconds=_COUNT,
    suspend=_FLAG,
)
_CLUSTER = _record(
    "headGroupSpec",
    headGroupSpec=_record("template", **_GROUP, serviceType=_TEXT, enableIngress=_FLAG),
    workerGroupSpecs=_list(_WORKERS),
    rayVersion=_TEXT,
    authOptions=_record(mode={"enum": ["token", "disabled"]}, secretName=_TEXT, enableK8sTokenAuth=_FLAG),
    enableInTreeAutoscaling=_FLAG,
    headServiceAnnotations=_TEXTS,
    suspend=_FLAG,
)
_JOB = _record(
    "entrypoint rayClusterSpec",  # or a `clusterSelector`, which no manifest here has
    entrypoint=_TEXT,
    rayClusterSpec=_CLUSTER,
    runtimeEnvYAML=_TEXT,
    submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
    entrypointNumCpus={"type": "number", "minimum": 0},
    activeDeadlineSeconds=_COUNT | {"minimum": 1},
    backoffLimit=_COUNT,
    shutdownAfterJobFinishes=_FLAG,
    ttlSecondsAfterFinished=_COUNT,
    suspend=_FLAG,
    metadata=_TEXTS,
    jobId=_TEXT,
)
_SPECS = {"RayCluster": (_CLUSTER, 63), "RayJob": (_JOB, 47)}
"""Kind -> its `spec`, and the longest name from which the operator makes names of its own."""

TOKENS_SINCE = (2, 52)
"""First Ray whose clusters can ask for a token."""


def complaints(manifest: Any) -> list[str]:
    """What an API server with KubeRay's definitions, or the operator, would refuse or drop; empty where nothing."""
    spec, longest = _SPECS[manifest["kind"]]
    whole = _record(
        "apiVersion kind metadata spec",
        apiVersion={"const": "ray.io/v1"},
        kind=_TEXT,
        metadata=_record("name", name=_TEXT, namespace=_TEXT, labels=_TEXTS, annotations=_TEXTS),
        spec=spec,
    )
    found = [f"{e.json_path}: {e.message}" for e in jsonschema.Draft202012Validator(whole).iter_errors(manifest)]
    if found:
        return found
    name = manifest["metadata"]["name"]
    if len(name) > longest or not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name):
        found.append(f"metadata.name {name!r}: at most {longest} of a-z, 0-9 and -, the first a letter")
    cluster = manifest["spec"].get("rayClusterSpec", manifest["spec"])
    version = tuple(int(part) for part in cluster.get("rayVersion", "0").split(".")[:2])
    if cluster.get("authOptions", {}).get("mode") == "token" and version < TOKENS_SINCE:
        found.append("authOptions.mode token: rayVersion 2.52.0 or later")
    for group in cluster.get("workerGroupSpecs", []):
        if not group["minReplicas"] <= group.get("replicas", group["minReplicas"]) <= group["maxReplicas"]:
            found.append(f"group {group['groupName']}: minReplicas <= replicas <= maxReplicas")
    for group in [cluster["headGroupSpec"], *cluster.get("workerGroupSpecs", [])]:
        if group.get("resources") and {"num-cpus", "num-gpus", "memory", "resources"} & set(group["rayStartParams"]):
            found.append("resources: in rayStartParams or in the group's own, not in both")
    return found
