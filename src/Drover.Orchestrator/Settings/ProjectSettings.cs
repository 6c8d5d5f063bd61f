using System.Globalization;
using System.Text;
using System.Text.Json;
using Drover.Orchestrator.Backlog;
using Drover.Workflows;

namespace Drover.Orchestrator.Settings;

/// <summary>A setting's value and where it comes from: a flag, a variable, the file's name, or <c>default</c>.</summary>
public sealed record ShownSetting(string Key, string? Value, string Source, string Doc);

/// <summary>
/// The settings of a project, in force: flag before environment before <c>.drover/config.json</c> before default. Immutable.
/// Unknown keys and bad values are errors wherever they stand, also where a stronger source hides them.
/// </summary>
public sealed class ProjectSettings
{
    /// <summary>The file's name, relative to the repository.</summary>
    public const string FileName = ".drover/config.json";
    private const int MaxFile = 1024 * 1024;

    private readonly Dictionary<string, (string Value, string Source)> _values;

    private ProjectSettings(string project, Dictionary<string, (string, string)> values)
    {
        Project = project;
        _values = values;
    }

    /// <summary>The project's id, a UUID in lower case.</summary>
    public string Project { get; }

#pragma warning disable CS1591 // described in SettingCatalog
    public string? Target => Text("target");
    public string? TestCommand => Text("testCommand");
    public int Workers => Number("workers");
    public int MaxAttempts => Number("maxAttempts");
    public string AgentType => Text("agent.type")!;
    public string? AgentPath => Text("agent.path");
    public IReadOnlyList<string> EnvironmentPass => List("env.pass");
    public IReadOnlyList<string> GateKeep => List("gate.keep");
    public string? WorktreeSetup => Text("worktree.setup");
    public IReadOnlyList<string> WorktreeCopy => List("worktree.copy");
    public string WorktreeRoot => Text("worktree.root")!;
    public TimeSpan TaskTimeout => Time("timeouts.task");
    public TimeSpan SilenceTimeout => Time("timeouts.silence");
    public TimeSpan? StartTimeout => Text("timeouts.start") is null ? null : Time("timeouts.start");
    public TimeSpan ClaimTimeout => Time("timeouts.claim");
    public TimeSpan GateTimeout => Time("timeouts.gate");
    public TimeSpan SetupTimeout => Time("timeouts.setup");
    public int MaxDeletedPaths => Number("landing.maxDeletedPaths");
    public string EnvironmentName => Text("environment")!;
#pragma warning restore CS1591

    /// <summary>Reads the settings in force.</summary>
    /// <remarks><paramref name="root"/>: the repository's folder. <paramref name="flags"/>: values by flag (<c>--workers</c>); null where a flag was not given.</remarks>
    /// <exception cref="DroverException"><see cref="ErrorCode.NotFound"/> without a file (run <c>drover init</c>), <see cref="ErrorCode.InvalidInput"/> for anything in it that is not right.</exception>
    public static ProjectSettings Load(string root, IReadOnlyDictionary<string, string?> environment, IReadOnlyDictionary<string, string?>? flags = null)
    {
        ArgumentNullException.ThrowIfNull(environment);
        (string project, Dictionary<string, string> file) = Read(root);
        var values = new Dictionary<string, (string, string)>(StringComparer.Ordinal);
        foreach (Setting setting in SettingCatalog.All)
        {
            if (setting.Default is { } standard)
                values[setting.Key] = (setting.Check(setting.Key, standard), "default");
            if (file.TryGetValue(setting.Key, out string? stored))
                values[setting.Key] = (stored, FileName);
            // An empty variable counts as unset: that is how a shell or a CI file switches one off.
            if (setting.Variable is { } variable && environment.GetValueOrDefault(variable) is { Length: > 0 } given)
                values[setting.Key] = (setting.Check(variable, given), variable);
            if (setting.Flag is { } flag && flags?.GetValueOrDefault(flag) is { } typed)
                values[setting.Key] = (setting.Check(flag, typed), flag);
        }
        return new ProjectSettings(project, values);
    }

    /// <summary>Every setting with its value and source, in the catalog's order.</summary>
    public IReadOnlyList<ShownSetting> Show() => [.. SettingCatalog.All.Select(s =>
        _values.TryGetValue(s.Key, out (string Value, string Source) value)
            ? new ShownSetting(s.Key, value.Value.Replace("\n", ", ", StringComparison.Ordinal), value.Source, s.Doc)
            : new ShownSetting(s.Key, null, "not set", s.Doc))];

    /// <summary>True when the folder has a settings file.</summary>
    public static bool Exists(string root) => File.Exists(Path.Combine(root, FileName));

    /// <summary>
    /// Writes a new file with a new project id and the given values, and returns the id. When there is a file, it is checked and left alone, and
    /// its id returned, so that <c>init</c> can be repeated.
    /// </summary>
    public static string Create(string root, IReadOnlyDictionary<string, string> values)
    {
        ArgumentNullException.ThrowIfNull(values);
        if (Exists(root))
            return Read(root).Project;
        string project = Guid.NewGuid().ToString();
        Write(root, project, values.ToDictionary(v => v.Key, v => SettingCatalog.Get(v.Key).Check(v.Key, v.Value), StringComparer.Ordinal));
        return project;
    }

    /// <summary>Sets one value in the file. Lists are separated by commas.</summary>
    /// <exception cref="DroverException"><see cref="ErrorCode.InvalidInput"/>; the file is unchanged.</exception>
    public static void Set(string root, string key, string value)
    {
        Setting setting = SettingCatalog.Get(key);
        string canonical = setting.Check(key, value);
        (string project, Dictionary<string, string> file) = Read(root);
        file[key] = canonical;
        Write(root, project, file);
    }

    /// <summary>Takes one value out of the file. False: it was not in it.</summary>
    /// <exception cref="DroverException"><see cref="ErrorCode.InvalidInput"/> for an unknown key.</exception>
    public static bool Unset(string root, string key)
    {
        SettingCatalog.Get(key);
        (string project, Dictionary<string, string> file) = Read(root);
        if (!file.Remove(key))
            return false;
        Write(root, project, file);
        return true;
    }

    private string? Text(string key) => _values.TryGetValue(key, out (string Value, string) value) ? value.Value : null;

    private int Number(string key) => int.Parse(Text(key)!, CultureInfo.InvariantCulture);

    private TimeSpan Time(string key) => Duration.Parse(Text(key)!);

    private IReadOnlyList<string> List(string key) => Text(key) is { Length: > 0 } text ? text.Split('\n') : [];

    private static (string Project, Dictionary<string, string> Values) Read(string root)
    {
        string path = Path.Combine(root, FileName);
        byte[] bytes;
        try
        {
            if (new FileInfo(path) is { Exists: true, Length: > MaxFile })
                throw Bad($"is larger than {MaxFile} bytes: it is not a settings file");
            bytes = File.ReadAllBytes(path);
        }
        catch (Exception e) when (e is FileNotFoundException or DirectoryNotFoundException)
        {
            throw new DroverException(ErrorCode.NotFound, $"there is no {FileName} in {root}: run `drover init` in the repository");
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw Bad("cannot be read: " + e.Message);
        }

        JsonDocument document;
        try
        {
            document = JsonDocument.Parse(bytes, new JsonDocumentOptions { MaxDepth = 8, AllowDuplicateProperties = false });
        }
        catch (JsonException e)
        {
            // A torn or foreign file is never guessed at (C-06).
            throw Bad($"is not valid JSON (line {e.LineNumber + 1}): repair it, or move it away and run `drover init`");
        }
        using (document)
        {
            if (document.RootElement.ValueKind != JsonValueKind.Object)
                throw Bad("must hold one JSON object");
            var values = new Dictionary<string, string>(StringComparer.Ordinal);
            string? project = null;
            Collect(document.RootElement, "", values, ref project);
            return (project ?? throw Bad("has no 'project': repair it, or move it away and run `drover init`"), values);
        }
    }

    private static void Collect(JsonElement element, string prefix, Dictionary<string, string> values, ref string? project)
    {
        foreach (JsonProperty property in element.EnumerateObject())
        {
            string key = prefix + property.Name;
            if (key == "project")
            {
                project = property.Value.ValueKind == JsonValueKind.String && Guid.TryParseExact(property.Value.GetString(), "D", out Guid id) ? id.ToString()
                    : throw Bad("'project' is not a UUID: repair it, or move the file away and run `drover init`");
            }
            else if (SettingCatalog.Find(key) is { InFile: true } setting)
            {
                values[key] = setting.Check($"{FileName}: {key}", Plain(setting, key, property.Value));
            }
            else if (property.Value.ValueKind == JsonValueKind.Object && SettingCatalog.All.Any(s => s.InFile && s.Key.StartsWith(key + ".", StringComparison.Ordinal)))
            {
                Collect(property.Value, key + ".", values, ref project);
            }
            else
            {
                string? near = TextRules.Nearest(key, SettingCatalog.All.Where(s => s.InFile).Select(s => s.Key));
                throw Bad($"the key '{TextRules.Printable(key)}' is not known: {(near is null ? "remove it" : $"did you mean {near}?")}");
            }
        }
    }

    private static string Plain(Setting setting, string key, JsonElement value) => (setting.Kind, value.ValueKind) switch
    {
        (SettingKind.Number, JsonValueKind.Number) => value.GetRawText(),
        (SettingKind.Text or SettingKind.Word or SettingKind.Time, JsonValueKind.String) => value.GetString()!,
        (SettingKind.List, JsonValueKind.Array) when value.EnumerateArray().All(v => v.ValueKind == JsonValueKind.String && !v.GetString()!.AsSpan().ContainsAny(",\n"))
            => string.Join('\n', value.EnumerateArray().Select(v => v.GetString())),
        _ => throw Bad($"'{key}' must be {setting.Kind switch
        {
            SettingKind.Number => "a number",
            SettingKind.List => "an array of texts without commas",
            SettingKind.Time => "a text such as \"10m\"",
            _ => "a text",
        }}"),
    };

    private static void Write(string root, string project, Dictionary<string, string> values)
    {
        using var stream = new MemoryStream();
        using (var json = new Utf8JsonWriter(stream, new JsonWriterOptions { Indented = true, Encoder = System.Text.Encodings.Web.JavaScriptEncoder.UnsafeRelaxedJsonEscaping }))
        {
            json.WriteStartObject();
            json.WriteString("project", project);
            string? group = null;
            foreach (Setting setting in SettingCatalog.All)
            {
                if (!values.TryGetValue(setting.Key, out string? value))
                    continue;
                string[] parts = setting.Key.Split('.');
                string? wanted = parts.Length > 1 ? parts[0] : null;
                if (group != wanted)
                {
                    if (group is not null)
                        json.WriteEndObject();
                    if (wanted is not null)
                        json.WriteStartObject(wanted);
                    group = wanted;
                }
                WriteValue(json, setting, parts[^1], value);
            }
            if (group is not null)
                json.WriteEndObject();
            json.WriteEndObject();
        }
        stream.Write("\n"u8);
        AtomicFile.Write(Path.Combine(root, FileName), stream.ToArray());
    }

    private static void WriteValue(Utf8JsonWriter json, Setting setting, string name, string value)
    {
        switch (setting.Kind)
        {
            case SettingKind.Number:
                json.WriteNumber(name, int.Parse(value, CultureInfo.InvariantCulture));
                break;
            case SettingKind.List:
                json.WriteStartArray(name);
                foreach (string one in value.Split('\n', StringSplitOptions.RemoveEmptyEntries))
                    json.WriteStringValue(one);
                json.WriteEndArray();
                break;
            default:
                json.WriteString(name, value);
                break;
        }
    }

    private static DroverException Bad(string what) => new(ErrorCode.InvalidInput, $"{FileName} {what}");
}
