{{- define "distcached.name" -}}
{{- if contains "distcached" .Release.Name -}}
{{ .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-distcached" .Release.Name | trunc 52 | trimSuffix "-" }}
{{- end -}}
{{- end -}}

{{- define "distcached.selector" -}}
app.kubernetes.io/name: distcached
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "distcached.labels" -}}
{{ include "distcached.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}
