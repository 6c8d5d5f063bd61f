using System.Text;
using System.Text.Json;
using Drover.Orchestrator.CodingAgents;
using Drover.Workflows;

namespace Drover.Orchestrator.Gates;

/// <summary>
/// A test or set-up command. A plain command line is split into an argument list and run without a shell; one that
/// needs a shell, because it has an operator, a variable, a pattern or an assignment outside quotes, is run by <c>/bin/sh -c</c>.
/// </summary>
/// <param name="Text">As the operator wrote it; part of the evidence key.</param>
/// <param name="Argv">What is started.</param>
/// <param name="UsesShell">Whether <paramref name="Argv"/> is the shell.</param>
internal sealed record GateCommand(string Text, IReadOnlyList<string> Argv, bool UsesShell)
{
    private const string ShellCharacters = "|&;<>()$`*?[#~!{\n";

    /// <summary>Reads a command line; throws <see cref="DroverException"/> (InvalidInput) for an empty one, an open quote or a control character.</summary>
    internal static GateCommand Parse(string text)
    {
        var trimmed = text.Trim();
        if (trimmed.Length == 0)
            throw new DroverException(ErrorCode.InvalidInput, "the test command is empty; give a program, for example --test-command \"dotnet test\"");
        if (trimmed.Any(c => char.IsControl(c) && c is not ('\n' or '\t')))
            throw new DroverException(ErrorCode.InvalidInput, "the test command contains a control character; write it as one line of text");
        var (argv, shell) = Split(trimmed);
        shell |= argv.Count > 0 && IsAssignment(argv[0]);
        return new(trimmed, shell ? ["/bin/sh", "-c", trimmed] : argv, shell);
    }

    /// <summary>The command that a project of a known kind is tested with, or null. Looks at file names, and for npm at its script; runs nothing.</summary>
    internal static GateCommand? Detect(string folder)
    {
        bool Has(string name) => File.Exists(Path.Combine(folder, name));
        bool HasAny(params string[] patterns) => patterns.Any(pattern => Directory.EnumerateFiles(folder, pattern).Any());
        var text = 0 switch
        {
            _ when HasAny("*.slnx", "*.sln", "*.csproj", "*.fsproj", "*.vbproj") => "dotnet test",
            _ when Has("package.json") && HasNpmTest(Path.Combine(folder, "package.json")) => "npm test",
            _ when Has("Cargo.toml") => "cargo test",
            _ when Has("go.mod") => "go test ./...",
            _ when Has("pyproject.toml") || Has("setup.py") || Has("pytest.ini") || Has("tox.ini") => "python3 -m pytest",
            _ when HasMakeTest(folder) => "make test",
            _ => null,
        };
        return text is null ? null : Parse(text);
    }

    /// <summary>The program that would run in a folder, or null: asked before the first task.</summary>
    internal string? FindProgram(string folder, string? path) => ProgramPath.Resolve(Argv[0], path, folder);

    private static (List<string> Argv, bool Shell) Split(string text)
    {
        var argv = new List<string>();
        var word = new StringBuilder();
        var any = false;
        var shell = false;
        char? quote = null;
        for (var i = 0; i < text.Length; i++)
        {
            var c = text[i];
            if (quote == c)
            {
                quote = null;
            }
            else if (quote is null && c is '"' or '\'' && quote is null)
            {
                quote = c;
                any = true;
            }
            else if (c == '\\' && quote != '\'' && i + 1 < text.Length && (quote is null || text[i + 1] is '"' or '\\' or '$' or '`'))
            {
                word.Append(text[++i]);
                any = true;
            }
            else if (quote is null && c is ' ' or '\t' && quote is null)
            {
                if (any)
                    argv.Add(word.ToString());
                word.Clear();
                any = false;
            }
            else
            {
                // Inside double quotes a shell still replaces variables and commands.
                shell |= quote is null ? ShellCharacters.Contains(c, StringComparison.Ordinal) : quote == '"' && c is '$' or '`';
                word.Append(c);
                any = true;
            }
        }
        if (quote is not null)
            throw new DroverException(ErrorCode.InvalidInput, $"the test command has an open {quote} quote; close it");
        if (any)
            argv.Add(word.ToString());
        return (argv, shell);
    }

    private static bool IsAssignment(string word)
    {
        var equals = word.IndexOf('=', StringComparison.Ordinal);
        return equals > 0 && word[..equals].All(c => char.IsAsciiLetterOrDigit(c) || c == '_');
    }

    private static bool HasNpmTest(string path)
    {
        try
        {
            using var document = JsonDocument.Parse(File.ReadAllBytes(path), new() { MaxDepth = 32, CommentHandling = JsonCommentHandling.Skip, AllowTrailingCommas = true });
            return document.RootElement.ValueKind == JsonValueKind.Object
                && document.RootElement.TryGetProperty("scripts", out var scripts) && scripts.ValueKind == JsonValueKind.Object
                && scripts.TryGetProperty("test", out var test) && test.ValueKind == JsonValueKind.String
                && !test.GetString()!.Contains("no test specified", StringComparison.Ordinal); // npm init's placeholder, which fails
        }
        catch (JsonException)
        {
            return false; // not a package file we can read; another kind may still match
        }
    }

    private static bool HasMakeTest(string folder)
    {
        var makefile = new[] { "GNUmakefile", "makefile", "Makefile" }.Select(name => Path.Combine(folder, name)).FirstOrDefault(File.Exists);
        return makefile is not null && File.ReadLines(makefile).Any(line =>
            line.StartsWith("test:", StringComparison.Ordinal) && !line.StartsWith("test:=", StringComparison.Ordinal));
    }
}
