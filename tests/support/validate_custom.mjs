// Objects in, what the published definitions of their kinds say against them out: JSON on both sides.
import { readFileSync } from "node:fs";

const modules = {
  "argoproj.io/v1alpha1": await import("@kubernetes-models/argo-cd/argoproj.io/v1alpha1"),
  "external-secrets.io/v1": await import("@kubernetes-models/external-secrets/external-secrets.io/v1"),
  "gateway.networking.k8s.io/v1": await import("@kubernetes-models/gateway-api/gateway.networking.k8s.io/v1"),
  "monitoring.coreos.com/v1": await import("@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1"),
};

function problem(object) {
  const Kind = modules[object.apiVersion][object.kind];
  try {
    new Kind(object).validate();
    return "";
  } catch (error) {
    return `${object.kind}: ${error.message}`;
  }
}

console.log(JSON.stringify(JSON.parse(readFileSync(0)).map(problem)));
