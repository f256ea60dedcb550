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

{{/* What edges may dial: the Service's names, and those of the values. */}}
{{- define "hub.xdsNames" -}}
{{- $own := printf "%s.%s.svc" (include "hub.name" .) .Release.Namespace }}
{{- concat (list $own (printf "%s.cluster.local" $own)) .Values.xds.names | uniq | join "," }}
{{- end }}
