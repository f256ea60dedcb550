{{- define "hub.name" -}}crossway-hub{{- end }}

{{- define "hub.selector" -}}
app.kubernetes.io/name: crossway-hub
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "hub.labels" -}}
{{ include "hub.selector" . }}
app.kubernetes.io/part-of: crossway
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
{{- end }}

{{/* The hub's own ranges, which no member may announce. */}}
{{- define "hub.cidrs" -}}
{{- if not .Values.hubCIDRs }}
{{- fail `hubCIDRs is required: the pod and Service CIDRs of this cluster, like --set 'hubCIDRs={10.244.0.0/16,10.96.0.0/12}'. No member may announce an address in them. They are the --cluster-cidr of kube-controller-manager and the --service-cluster-ip-range of kube-apiserver:
  kubectl cluster-info dump | grep -m 2 -E -o -e '--(cluster-cidr|service-cluster-ip-range)=[^" ]+'
A managed cluster shows them in its description. 'kubectl get nodes -o jsonpath={.items[*].spec.podCIDR}' and 'kubectl get service kubernetes' show addresses of each.` }}
{{- end }}
{{- join "," .Values.hubCIDRs }}
{{- end }}

{{/* What edges may dial: the Service's names, and those of the values. */}}
{{- define "hub.xdsNames" -}}
{{- $own := printf "%s.%s.svc" (include "hub.name" .) .Release.Namespace }}
{{- concat (list $own (printf "%s.cluster.local" $own)) .Values.xds.names | uniq | join "," }}
{{- end }}
