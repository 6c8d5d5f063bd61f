using System.Collections;
using Drover.Cli.Terminal;

namespace Drover.Cli;

/// <summary>Who called: the folder, the environment and where output goes. Commands read these from here only, so that the demo can call them for another folder.</summary>
internal sealed record Caller(string Folder, IReadOnlyDictionary<string, string?> Environment, Output Output)
{
    /// <summary>The caller of this process.</summary>
    public static Caller OfThisProcess()
    {
        var environment = new Dictionary<string, string?>(StringComparer.Ordinal);
        foreach (DictionaryEntry entry in System.Environment.GetEnvironmentVariables())
            environment[(string)entry.Key] = (string?)entry.Value;
        return new Caller(Directory.GetCurrentDirectory(), environment, Output.OfThisProcess(environment));
    }

    /// <summary>True when a process with this id runs.</summary>
    public static bool IsAlive(int pid)
    {
        if (OperatingSystem.IsLinux())
            return Directory.Exists($"/proc/{pid}");
        try
        {
            using var process = System.Diagnostics.Process.GetProcessById(pid);
            return true;
        }
        catch (ArgumentException)
        {
            return false;
        }
    }
}
