{{- define "edge.name" -}}crossway-edge-{{ .Values.pool }}{{- end }}

{{- define "edge.selector" -}}
app.kubernetes.io/name: crossway-edge
app.kubernetes.io/instance: {{ .Release.Name }}
crossway.dev/edge-pool: {{ .Values.pool | quote }}
{{- end }}

{{- define "edge.labels" -}}
{{ include "edge.selector" . }}
app.kubernetes.io/part-of: crossway
app.kubernetes.io/version: {{ .Values.image.tag | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
{{- end }}
